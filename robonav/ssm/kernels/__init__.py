"""Triton kernels of the scans and of the imagination step, for CUDA; the PyTorch forms are their oracle."""
