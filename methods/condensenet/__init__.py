"""CondenseNet: learned group convolutions (Huang et al., arXiv 1711.09224)."""
