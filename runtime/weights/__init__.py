"""Quantized weights: 4-bit (AWQ's stored format) and 8-bit linear layers, loading, quantizing.

awq_format      the checkpoint format on disk: pack, unpack, round to nearest
rounding        16-bit matrices to 4 and 8 bits, a block at a time on a GPU
layout          the same bits in the order the kernels read them
cuda/row.cu     CUDA: products of one and two rows; cuda_row is its host side
cuda/stream.cu  CUDA: 4-bit products of 1 to 8 rows in whole numbers; cuda_stream
cuda/parts.cu CUDA: the same for 5 to 16 rows; cuda_parts; cuda/norm.cu: norms before them
cuda/wide.cu    CUDA: 4-bit products to 64 rows by Hopper's warpgroups; cuda_wide
cuda/sweep.cu   CUDA: 4-bit products of 3 to 16 rows; cuda_sweep
cuda/tile.cu    CUDA: the same to 32 rows, and in groups of 32 or 64; cuda_tile
cuda/ring.cu    CUDA: products of 33 to 64 rows; cuda_ring
kernels         Triton: products of one row, for machines without NVRTC
kernels_tile    Triton: products of up to 64 rows, dequantization
launch          choosing and launching them
workspace       the scratch that a model's layers share
linear          the layers that replace `torch.nn.Linear`
experts         the layers that replace stacked mixture-of-experts parameters
joint           projections of one input in one launch
replace         which modules of a model are quantized, and swapping them in place
build           a transformers model without weights, filled later
load_awq        `quant_method: awq` checkpoints, straight from safetensors
load_plain      every other checkpoint, by transformers
quantize        making such checkpoints; awq_adapter speaks to the AWQ library
random          models of the right shapes with random weights, built on the device
"""

DOOR = (
    "awq_format",
    "build",
    "cuda.cuda_parts",
    "cuda.cuda_norm",
    "fused_projections",
    "layout",
    "linear",
    "load_awq",
    "load_plain",
    "quantize_modules",
    "random",
    "workspace",
)
"""Modules that other rooms may import."""
