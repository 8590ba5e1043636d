"""Kernels that compute trees of neurons: plain torch, Numba and C++ on the CPU, behind one torch operator."""
