"""The operations worth fusing: `reference.py` says in plain torch what each computes, the other files compute it by kernels of Triton.

`dispatch.py` chooses: plain torch runs wherever kernels cannot. Only the files of kernels import Triton.
"""
