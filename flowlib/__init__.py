"""flowlib: flow-based generative models in PyTorch, from the vector field up.

    import flowlib as fl

    v = fl.eight_gaussians().marginal_velocity(fl.linear)            # the exact field from N(0, I) to the data
    x_1 = fl.odeint(v, torch.randn(1000, 2), steps=50, method=fl.RK4)

Conventions, stated once:

- Time t = 0 is the source (noise) x_0 and t = 1 the data x_1; the velocity is dx/dt = v(x, t).
- Points are tensors of shape (B, *D) for any D (vectors, images, latents). Times are scalars or tensors (B,), of dtype
  `promote_types(float32, x.dtype)`: never half precision, and float64 when the points are float64.
- A *field* is any callable `v(x, t, **cond)` that returns a tensor like x. A *path* gives (x_t, u_t) from
  (x_0, x_1, t). A *coupling* re-pairs (x_0, x_1). Everything else is a function of these three nouns.
- Keyword arguments that a function does not know are conditions, and are passed on to the field.
- Densities are in nats.
- Randomness enters through `generator=` alone; nothing touches torch's or numpy's global state. Without a `device=`,
  random tensors are made where the generator lives.
- A bad argument raises ValueError (shapes, ranges) or TypeError (types, dtypes) that names what came and what was
  expected; a solver that cannot proceed raises FloatingPointError and never returns NaN in silence.
"""

from flowlib.autoencoder import Autoencoder
from flowlib.autoregressive import MaskedAutoregressive
from flowlib.averaging import EMA
from flowlib.continuous import Law, flow_with_log_det, log_prob, nll_loss, odeint_adjoint
from flowlib.conventions import (
    DDPM,
    EDM,
    FLOW_MATCHING,
    RECTIFIED_FLOW,
    SD3,
    Convention,
    Guidance,
    ddpm,
    edm,
    from_sd3,
    to_sd3,
    translate_guidance,
    translate_prediction,
    translate_state,
    translate_time,
    translated,
    vp_sde,
)
from flowlib.conversions import Prediction, convert, converted
from flowlib.correctors import Corrected, effective_sample_size, feynman_kac, mixing, resample
from flowlib.coupling_layers import AffineCoupling, CouplingTransform, SplineCoupling
from flowlib.couplings import (
    Choice,
    Coupling,
    choose,
    conditional,
    exact,
    independent,
    optimal,
    partition,
    sharpness,
    sinkhorn,
    sinkhorn_plan,
    swap_violations,
)
from flowlib.data import (
    Toy,
    checkerboard,
    eight_gaussians,
    five_clouds,
    four_corners,
    moons,
    pinwheel,
    s_curve,
    three_arms,
)
from flowlib.derivatives import continuity_residual, divergence, pullback, rademacher, velocity_and_divergence
from flowlib.empirical import Empirical, EmpiricalVelocity
from flowlib.fields import (
    Field,
    LinearField,
    TravelingVortex,
    expand_time,
    rotation,
    saddle,
    shear,
    spiral,
)
from flowlib.flow_maps import (
    AverageVelocity,
    FlowMapMLP,
    average_velocity,
    eulerian_residual,
    flow_map,
    intervals,
    jump,
    lagrangian_residual,
    mean_flow_loss,
    shortcut_residual,
)
from flowlib.guidance import (
    classifier_free,
    classifier_guided,
    drop_labels,
    extrapolate,
    guided,
    interval,
    rescaled,
    zero_init,
    zero_star,
)
from flowlib.guided_distillation import guided_distillation_loss
from flowlib.matching import cfm_loss
from flowlib.metrics import energy_distance, noise_floor, sliced_wasserstein2, wasserstein2
from flowlib.mixtures import GaussianMixture, MarginalVelocity
from flowlib.mmdit import MMDiT, MMDiTConfig
from flowlib.mmdit_blocks import JointBlock, QKNorm, TokenStream
from flowlib.nets import SeededLinear, VelocityMLP, time_embedding
from flowlib.normalizing import BaseLaw, Flow, StandardNormal, bits_per_dimension, dequantize
from flowlib.pairs import Pairs, ahead
from flowlib.paths import AffinePath, conical, cosine, linear, variance_preserving
from flowlib.rectified import path_energy, rectify, straightness
from flowlib.semidiscrete import Semidiscrete, fit_semidiscrete
from flowlib.solvers import odeint, root_mean_square, trajectory, worst_point
from flowlib.splines import AffineBijection, Bijection, SplineBijection, rational_quadratic_spline
from flowlib.tableaus import DOPRI5, EULER, HEUN, MIDPOINT, RK4, Tableau
from flowlib.text import CLIPText, Text, TextEncoder, Tokenizer
from flowlib.times import TimeLaw, Times, logit_normal, mode, resolution_shift, shift, uniform
from flowlib.training import Run, cosine_decay, fit, fused_adam, no_decay
from flowlib.transforms import ActNorm, Composition, Inverse, InvertibleLinear, Permutation, Transform
from flowlib.unet import SeededConv, UNet

__version__ = "0.1.0"
__all__ = [
    "DDPM",
    "DOPRI5",
    "EDM",
    "EMA",
    "EULER",
    "FLOW_MATCHING",
    "HEUN",
    "MIDPOINT",
    "RECTIFIED_FLOW",
    "RK4",
    "SD3",
    "ActNorm",
    "AffineBijection",
    "AffineCoupling",
    "AffinePath",
    "Autoencoder",
    "AverageVelocity",
    "BaseLaw",
    "Bijection",
    "CLIPText",
    "Choice",
    "Composition",
    "Convention",
    "Corrected",
    "Coupling",
    "CouplingTransform",
    "Empirical",
    "EmpiricalVelocity",
    "Field",
    "Flow",
    "FlowMapMLP",
    "GaussianMixture",
    "Guidance",
    "Inverse",
    "InvertibleLinear",
    "JointBlock",
    "Law",
    "LinearField",
    "MMDiT",
    "MMDiTConfig",
    "MarginalVelocity",
    "MaskedAutoregressive",
    "Pairs",
    "Permutation",
    "Prediction",
    "QKNorm",
    "Run",
    "SeededConv",
    "SeededLinear",
    "Semidiscrete",
    "SplineBijection",
    "SplineCoupling",
    "StandardNormal",
    "Tableau",
    "Text",
    "TextEncoder",
    "TimeLaw",
    "Times",
    "TokenStream",
    "Tokenizer",
    "Toy",
    "Transform",
    "TravelingVortex",
    "UNet",
    "VelocityMLP",
    "ahead",
    "average_velocity",
    "bits_per_dimension",
    "cfm_loss",
    "checkerboard",
    "choose",
    "classifier_free",
    "classifier_guided",
    "conditional",
    "conical",
    "continuity_residual",
    "convert",
    "converted",
    "cosine",
    "cosine_decay",
    "ddpm",
    "dequantize",
    "divergence",
    "drop_labels",
    "edm",
    "effective_sample_size",
    "eight_gaussians",
    "energy_distance",
    "eulerian_residual",
    "exact",
    "expand_time",
    "extrapolate",
    "feynman_kac",
    "fit",
    "fit_semidiscrete",
    "five_clouds",
    "flow_map",
    "flow_with_log_det",
    "four_corners",
    "from_sd3",
    "fused_adam",
    "guided",
    "guided_distillation_loss",
    "independent",
    "interval",
    "intervals",
    "jump",
    "lagrangian_residual",
    "linear",
    "log_prob",
    "logit_normal",
    "mean_flow_loss",
    "mixing",
    "mode",
    "moons",
    "nll_loss",
    "no_decay",
    "noise_floor",
    "odeint",
    "odeint_adjoint",
    "optimal",
    "partition",
    "path_energy",
    "pinwheel",
    "pullback",
    "rademacher",
    "rational_quadratic_spline",
    "rectify",
    "resample",
    "rescaled",
    "resolution_shift",
    "root_mean_square",
    "rotation",
    "s_curve",
    "saddle",
    "sharpness",
    "shear",
    "shift",
    "shortcut_residual",
    "sinkhorn",
    "sinkhorn_plan",
    "sliced_wasserstein2",
    "spiral",
    "straightness",
    "swap_violations",
    "three_arms",
    "time_embedding",
    "to_sd3",
    "trajectory",
    "translate_guidance",
    "translate_prediction",
    "translate_state",
    "translate_time",
    "translated",
    "uniform",
    "variance_preserving",
    "velocity_and_divergence",
    "vp_sde",
    "wasserstein2",
    "worst_point",
    "zero_init",
    "zero_star",
]
