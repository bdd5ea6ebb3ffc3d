"""Where a model runs, and which of several processes this is."""

import os

import torch

from splade.config.schema import Experiment
from splade.errors import ConfigError, ModelError
from splade.models.checkpoint import load_for_inference
from splade.models.masked_lm import MaskedLMEncoder
from splade.models.splade import Splade


def pick_device() -> torch.device:
    """Return this process's GPU, or the CPU when there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def process_rank() -> tuple[int, int]:
    """Return (rank, number of processes) as `torchrun` set them; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def search_threads(n_threads: int) -> int:
    """Return `config.n_threads`, where 0 stands for one per core."""
    return n_threads or len(os.sched_getaffinity(0))


def inference_model(experiment: Experiment) -> Splade:
    """Load the model that indexing and retrieval use, onto the device where it runs, in the precision asked for.

    Raises:
        ConfigError: `init_dict.fp16` without a CUDA device, or `init_dict.torch_compile` where it does not work.
    """
    device, half = pick_device(), experiment.init_dict.fp16
    if half and device.type != "cuda":
        raise ConfigError("init_dict.fp16=true needs a CUDA device, and there is none; set init_dict.fp16=false")
    model = load_for_inference(experiment).to(device)
    for encoder in dict.fromkeys((model.document_encoder, model.query_encoder)):
        if isinstance(encoder, MaskedLMEncoder):
            encoder.half_precision = half
            if experiment.init_dict.torch_compile:
                _compile(encoder)
    return model


def _compile(encoder: MaskedLMEncoder) -> None:
    """Have `torch.compile` make programs of what comes before the sparse head, and try them."""
    encoder.compile_backbone()
    example = torch.ones(2, 4, dtype=torch.int64)
    try:
        # A program for any number of texts, and one for a single text.
        for batch in (example, example[:1]):
            encoder.encode(batch, batch)
    except ModelError:
        raise
    except Exception as error:  # compilers fail in many ways, and all mean the same to the user
        reason = next(iter(str(error).strip().splitlines()), "no reason given")
        raise ConfigError(
            f"init_dict.torch_compile=true: the model cannot be compiled here ({type(error).__name__}: {reason}); "
            "usually a C++ compiler is missing. Set init_dict.torch_compile=false"
        ) from error
