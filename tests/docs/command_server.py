"""Runs `python` commands of shell blocks in a fraction of a second.

A server imports the heavy libraries once. A `python` on the PATH of the shell is a small client that hands its
arguments, environment, working directory and outputs over; the server forks, and the fork does what was asked.

    python command_server.py SOCKET FOLDER      serve, with `python`, `python3` and `torchrun` made in FOLDER
"""

import array
import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import stat
import sys
import tempfile
import traceback
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
PRELOADED = """torch.utils.tensorboard transformers.models.bert.modeling_bert matplotlib.figure bm25s Stemmer
    scipy.stats sentence_transformers""".split()
CLIENT = """#!{python} -SE
import array, json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({socket!r})
asked = dict(program={program!r}, arguments=sys.argv[1:], folder=os.getcwd(), environment=dict(os.environ))
files = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))
server.sendmsg([json.dumps(asked).encode() + b"\\n"], [files])
sys.exit(int(server.recv(16) or b"70"))
"""


def serve(address: str, folder: str) -> None:
    """Answer until the process that started this one ends (its end of the standard input is closed)."""
    for name in PRELOADED:
        importlib.import_module(name)
    for path in sorted((ROOT / "splade").rglob("*.py")):
        if path.stem not in ("__init__", "triton_kernels") and path.parent != ROOT / "splade":
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    warm_up()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    for program in ("python", "python3", "torchrun"):
        client = Path(folder) / program
        client.write_text(CLIENT.format(python=sys.executable, socket=address, program=program))
        client.chmod(client.stat().st_mode | stat.S_IXUSR)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            answer(connection)
        connection.close()


def warm_up() -> None:
    """Use each library once; forks then find all that it loads when it is first used."""
    import torch

    import splade

    torch.set_num_threads(1)  # a pool of threads would not outlive the fork
    model = splade.load("pkg://cognition/model", max_length=16)
    with tempfile.TemporaryDirectory() as folder:
        index = splade.Index.build(folder, model, [("a", "Bees dance."), ("b", "Coffee wakes you.")])
        splade.Retriever(model, index, n_threads=1).search("how do bees talk", top_k=1)


def answer(connection: socket.socket) -> None:
    """Read what a client asks for, do it in a fork of this process, and send the exit code."""
    parts = []
    while not parts or not parts[-1].endswith(b"\n"):
        data, ancillary, _, _ = connection.recvmsg(1 << 20, 1024)
        parts.append(data)
        if ancillary:
            descriptors = array.array("i", ancillary[0][2])
    child = os.fork()
    if child:
        connection.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
        os._exit(0)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    code = 1
    with contextlib.suppress(BaseException):
        try:
            code = act(**json.loads(b"".join(parts)))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                sys.stderr.write(f"{end.code}\n")
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def act(program: str, arguments: list[str], folder: str, environment: dict[str, str]) -> int:
    """Do what the interpreter would do with these arguments."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, "")
    if program == "torchrun":
        assert environment["SNIPPETS"] == "compose", "several processes are only composed"
        arguments = arguments[arguments.index("-m") :]
    if environment["SNIPPETS"] == "compose":
        import splade.config.command as command
        import splade.tasks.first_look as first_look

        result = SimpleNamespace(summary=lambda: "composed", figures=tuple)
        command.check_inputs = lambda experiment, task: None  # the data is somewhere else
        first_look.first_look = lambda experiment, task: None
        command.task_function = lambda task: lambda experiment: result
        command.sweep_summary = lambda task, sweep: ""
    if arguments[0] == "-m":
        small = environment.get("SMALL_SETTINGS", "").split() if has_settings(arguments) else []
        if arguments[1].endswith("rerank") or arguments[1].endswith("reranker"):  # a query and its document share a row
            small = ["config.max_length=48" if "max_length" in one else one for one in small]
        sys.argv = ["-m", *arguments[2:], *small]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.argv = arguments[1:]
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(arguments[0]).parent)
        runpy.run_path(arguments[0], run_name="__main__")
    return 0


def has_settings(arguments: list[str]) -> bool:
    """Return whether a command composes an experiment and runs it, so that small settings can be added."""
    return arguments[1].startswith("splade.") and not {"--help", "--cfg"} & set(arguments)


if __name__ == "__main__":
    serve(*sys.argv[1:])
