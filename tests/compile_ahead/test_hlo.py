import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from talkjax.compile_ahead import hlo
from talkjax.training import sharding

TPU = """\
HloModule jit_step

%all-reduce-scatter.1 (input.1: f32[3,3,64,128]) -> f32[3,3,64,32] {
  %input.1 = f32[3,3,64,128]{3,2,1,0} parameter(0)
  ROOT %all-reduce.5 = f32[3,3,64,128]{3,2,1,0:T(8,128)} all-reduce(%input.1), channel_id=7
}

%fused (p: bf16[32,64]) -> bf16[128,64] {
  %all-gather.3 = bf16[128,64]{1,0:T(8,128)(2,1)S(1)} all-gather(%p), channel_id=3, dimensions={0}
}

ENTRY %main {
  %all-gather.1 = bf16[128,64]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=3, dimensions={0}
  %all-reduce.9 = (f32[100]{0}, f32[]) all-reduce(%a, %b), channel_id=4, to_apply=%add
  %ag = (bf16[8,2]{1,0}, bf16[32,2]{1,0}) all-gather-start(%q), channel_id=5, dimensions={0}
  %done = bf16[32,2]{1,0} all-gather-done(%ag)
  %permute = pred[10]{0} collective-permute(%c), channel_id=6, source_target_pairs={{0,1}}
  %custom = f32[4]{0} custom-call(%all-gather.1), custom_call_target="all-gather("
}
"""


def test_counts_each_collective_once_and_knows_fused_reduce_scatters():
    found = hlo.collectives(TPU)
    assert found == {
        "all-gather": (2, 128 * 64 * 2 + 32 * 2 * 2),
        "all-reduce": (1, 101 * 4),
        "reduce-scatter": (1, 3 * 3 * 64 * 128 * 4),
        "collective-permute": (1, 10),
    }
    total = sum(size for _, size in found.values())
    assert hlo.bytes_sent(found) == total + 101 * 4  # an all-reduce goes round twice


def test_counts_those_of_a_program_compiled_here():
    mesh = sharding.make_mesh(2, 4)
    rows = sharding.batch_sharding(mesh)
    split = NamedSharding(mesh, PartitionSpec(None, "fsdp"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    w = jax.ShapeDtypeStruct((64, 32), np.float32, sharding=split)
    x = jax.ShapeDtypeStruct((16, 64), np.float32, sharding=rows)
    step = jax.jit(lambda w, x: (2 * w, jnp.square(x).sum(0)), out_shardings=everywhere)
    found = hlo.collectives(step.lower(w, x).compile().as_text())
    assert found == {"all-gather": (1, 64 * 32 * 4), "all-reduce": (1, 64 * 4)}


SCHEDULED = """\
%body (p: f32[10]) -> f32[10] {
  %p = f32[10]{0} parameter(0)
  ROOT %next = f32[10]{0} multiply(%p, %p)
}

%inside_of_a_fusion (a: f32[1000]) -> f32[1000] {
  ROOT %n = f32[1000]{0} negate(%a)
}

ENTRY %main (a: f32[1000], b: f32[10]) -> f32[1000] {
  %a = f32[1000]{0} parameter(0)
  %b = f32[10]{0} parameter(1)
  %start = (f32[1000]{0}, f32[1000]{0:S(1)}, u32[]{:S(2)}) copy-start(%a)
  %done = f32[1000]{0:S(1)} copy-done(%start)
  %fast = f32[1000]{0:S(1)} fusion(%done), kind=kLoop, calls=%inside_of_a_fusion
  %loop = f32[10]{0} while(%b), condition=%c, body=%body
  ROOT %slow = f32[1000]{0} fusion(%fast, %a), kind=kLoop, calls=%inside_of_a_fusion
}
"""


def test_traffic_is_what_touches_memory():
    # The copy reads a; `fast` stays on the chip; `slow` reads a and writes; the loop's body.
    assert hlo.hbm_bytes(SCHEDULED) == 4000 + 2 * 4000 + 3 * 40


def test_traffic_of_a_program_compiled_here():
    x = jax.ShapeDtypeStruct((256, 256), np.float32)
    text = jax.jit(lambda a, b: jnp.sin(a @ b)).lower(x, x).compile().as_text()
    assert 3 * 256 * 256 * 4 <= hlo.hbm_bytes(text) <= 8 * 256 * 256 * 4
