"""SkipNet: gates that skip residual blocks, image by image (Wang et al., arXiv 1711.09485)."""
