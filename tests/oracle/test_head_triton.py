"""The Triton kernels, in Triton's interpreter, against the plain formula. Runs where triton is installed."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

PROGRAM = """
import torch
from splade.models.head import triton_kernels as head_triton
from splade.models.head.pooling import _MaxLogits

for seed, (batch, length, dim, vocab_size) in enumerate([(3, 70, 40, 150), (2, 5, 16, 20), (1, 64, 33, 128)]):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randint(-3, 4, (batch, length, dim), generator=generator).float()
    weight = torch.randint(-3, 4, (vocab_size, dim), generator=generator).float()
    mask = torch.rand(batch, length, generator=generator) > 0.3
    mask[0, length // 2:] = False
    if batch > 2:
        mask[2] = False
    logits = (hidden @ weight.t()).masked_fill(~mask[:, :, None], -torch.inf)
    expected = logits.amax(1)
    first = (logits == expected[:, None]).int().argmax(1)
    values = torch.empty(batch, vocab_size)
    argmax = torch.zeros(batch, vocab_size, dtype=torch.int32)
    head_triton.max_into(hidden.flatten(0, 1), mask, weight, values, argmax, 1000)
    assert torch.equal(values, expected)
    seen = mask.any(1)
    rows = 1000 + length * torch.arange(batch)[:, None] + first
    assert torch.equal(argmax[seen].long(), rows[seen])
    head_triton.max_into(hidden.flatten(0, 1), mask, weight, values, None, 0)
    assert torch.equal(values, expected)

    leaves = hidden.requires_grad_(), weight.requires_grad_()
    grads = torch.randn(batch, vocab_size, generator=generator) * (expected > 0)
    _MaxLogits.apply(leaves[0], mask, leaves[1], None).backward(grads)
    found = head_triton.gradients(hidden.detach(), weight.detach(), (argmax - 1000).clamp(min=0), grads, True, True)
    for leaf, grad in zip(leaves, found):
        torch.testing.assert_close(grad, leaf.grad, rtol=1e-5, atol=1e-5)

values = torch.empty(1, 20)
head_triton.max_into(torch.full((4, 16), torch.nan), torch.ones(1, 4).bool(), torch.ones(20, 16), values, None, 0)
assert values.isinf().all() and (values > 0).all()

# Half precision is added up in float32; the same numbers come out each time, and rows that nobody chose get zero.
torch.manual_seed(0)
hidden, weight = torch.randn(2, 9, 16), torch.randn(300, 16)
argmax = torch.randint(0, 9, (2, 300), dtype=torch.int32)
argmax[1] += 9
argmax[argmax == 4] = 5
grads = torch.randn(2, 300)
grads[:, ::3] = 0
for dtype in (torch.float16, torch.bfloat16):
    halves = hidden.to(dtype), weight.to(dtype)
    found = head_triton.gradients(*halves, argmax, grads, True, True)
    parts = (grads[..., None] * halves[1].float()).flatten(0, 1)
    expected = torch.zeros(18, 16).index_add_(0, argmax.long().flatten(), parts)
    torch.testing.assert_close(found[0].flatten(0, 1), expected.to(dtype), rtol=1e-2, atol=1e-5)
    assert (found[0].flatten(0, 1)[4] == 0).all()
    assert torch.equal(found[0], head_triton.gradients(*halves, argmax, grads, True, False)[0])

# Every dtype is tried; a passing lack of memory is not remembered, another failure is.
for dtype in (torch.float32, torch.float16):  # the interpreter multiplies the bits of bfloat16 as integers
    assert head_triton.works_on(torch.device("cpu"), dtype)
assert not head_triton.works_on(torch.device("cpu"), torch.float64)
right, calls = head_triton.max_into, []
for error, again in ((torch.OutOfMemoryError("full"), True), (RuntimeError("no compiler"), False)):
    head_triton._works.clear()

    def fail(*args):
        calls.append(args)
        raise error

    head_triton.max_into = fail
    assert not head_triton.works_on(torch.device("cpu"), torch.float16)
    head_triton.max_into = right
    assert head_triton.works_on(torch.device("cpu"), torch.float16) is again
assert len(calls) == 2

# Triton starts a kernel on the thread's device, not on that of the tensors.
entered = []


class Entering:
    def __init__(self, tensor):
        self.tensor = tensor

    def __enter__(self):
        entered.append(self.tensor)

    def __exit__(self, *_):
        entered.append(None)


def launch(kernel):
    class Launched:
        def __getitem__(self, grid):
            assert entered and entered[-1] is not None, kernel
            return kernel[grid]

    return Launched()


for name in ("_max_kernel", "_grad_weight_kernel", "_grad_hidden_kernel"):
    setattr(head_triton, name, launch(getattr(head_triton, name)))
head_triton.torch.cuda.device_of = Entering
head_triton._works.clear()
assert head_triton.works_on(torch.device("cpu"), torch.float32) and len(entered) == 4

# Whoever has set how float32 is multiplied by PyTorch's newer setting cannot read the older one.
assert not head_triton.tf32_allowed()
if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    assert head_triton.tf32_allowed()
print("equal")
"""


def test_kernels_equal_the_plain_formula_in_the_interpreter():
    # The interpreter is chosen by an environment variable that triton reads when it is imported.
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert finished.returncode == 0 and finished.stdout.strip() == "equal", finished.stderr
