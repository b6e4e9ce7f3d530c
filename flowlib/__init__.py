"""flowlib: the small PyTorch library that the chapters of the course share.

Conventions, stated once:

- Time t = 0 is the source (noise) x_0 and t = 1 the data x_1; the velocity is dx/dt = v(x, t).
- Points are tensors of shape (B, *D) for any D (vectors, images, latents). Times are scalars or tensors (B,), of dtype
  `promote_types(float32, x.dtype)`: never half precision, and float64 when the points are float64.
- A *field* is any callable `v(x, t, **cond)` that returns a tensor like x. A *path* gives (x_t, u_t) from
  (x_0, x_1, t). A *coupling* re-pairs (x_0, x_1). Everything else is a function of these three nouns.
- Randomness enters through `generator=` alone; nothing touches torch's or numpy's global state.
- A bad argument raises ValueError or TypeError that names what came and what was expected.
"""

__version__ = "0.1.0"
