"""CondConv: kernels that each image mixes from experts (Yang et al., arXiv 1904.04971)."""
