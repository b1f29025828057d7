"""ResRep: compactors that prune channels without loss (Ding et al., arXiv 2007.03260)."""
