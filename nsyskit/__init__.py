"""nsyskit: where each token's time goes in a llama.cpp run traced by NVIDIA Nsight Systems."""

__version__ = "0.1.0"
