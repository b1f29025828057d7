"""DS-Net: a slimmable supernet whose gate picks a width (Li et al., arXiv 2103.13258)."""
