"""A model with its card: what is in the folder, and what reaches a hub on this machine."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

import splade
from splade.config import compose_experiment
from splade.errors import ConfigError, SpladeError
from splade.storage.atomic import write_json
from splade.tasks.push import push


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as an upload asks for; keeps what arrives."""

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else self._chunks()
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        address = f"http://127.0.0.1:{self.server.server_port}"
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            self.server.created.append(wanted)
            self._answer({"url": f"{address}/{wanted.get('organization', 'me')}/{wanted['name']}"})
        elif self.path == "/api/validate-yaml":
            assert "library_name" in json.loads(body)["content"]
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            files = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            self._answer({"files": files})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._answer({"commitUrl": f"{address}/me/model/commit/{'0' * 40}", "commitOid": "0" * 40})
        else:
            self._answer({"error": "no such place"}, 404)

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        self._answer({"id": "me/model", "sha": "0" * 40, "siblings": []} if "/api/models/" in self.path else {})

    def _chunks(self):
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _answer(self, value, status=200):
        status = self.server.status or status
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    """A hub on this machine, and a user that is logged in there."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.created, server.files, server.status = [], [], {}, None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def experiment(tmp_path, model, *overrides):
    keys = {
        "init_dict.model_type_or_dir": model,
        "config.pretrained_no_yamlconfig": "true",
        "config.out_dir": tmp_path / "out",
        "push.folder": tmp_path / "pushed",
    }
    return compose_experiment("config_default", [*(f"{name}={value}" for name, value in keys.items()), *overrides])


@pytest.fixture
def results(tmp_path, tiny_model):
    """Results of a model, of BM25 beside it, and a mean of nobody knows what."""
    model = tiny_model()
    for name, costs in {
        "TOY": {"model": str(model), "L0_d": 20.5, "L0_q": 4.25, "flops": 0.5, "search_ms_per_query": 0.2},
        "beir/scifact": {"model": str(model), "L0_d": 30.5, "L0_q": 5.5, "flops": 0.75},
        "bm25/beir/scifact": {"model": "BM25", "L0_d": 90.0},
    }.items():
        write_json(tmp_path / "out" / name / "perf.json", {"nDCG@10": 0.51239 if "bm25" not in name else 0.9})
        write_json(tmp_path / "out" / name / "q_stats.json", costs)
    write_json(tmp_path / "out" / "perf_all_datasets.json", {"TOY": {"nDCG@10": 0.5}})
    return model


def card(folder):
    """Return the metadata and the text of a card."""
    _, head, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), text


def test_folder_and_card(tmp_path, results):
    shown = push(experiment(tmp_path, results, "push.license=apache-2.0")).summary()
    folder = tmp_path / "pushed"
    assert f"model and card in {folder}" in shown and "push.repo_id" in shown
    head, text = card(folder)
    assert head["license"] == "apache-2.0" and head["library_name"] == "sentence-transformers"
    found = {entry["dataset"]["name"]: entry["metrics"] for entry in head["model-index"][0]["results"]}
    assert found == {name: [{"type": "ndcg@10", "name": "nDCG@10", "value": 0.5124}] for name in ("TOY", "scifact")}
    assert "| TOY " in text
    for shown in (
        "0.5124",
        "20.5",
        "4.2",
        "0.75",
        "SparseEncoder(",
        "splade.load(",
        "AutoModelForMaskedLM",
        "apache-2.0",
    ):
        assert shown in text
    assert "BM25" not in text and "0.9" not in text
    assert "## Training" not in text  # it was not trained here
    ours = splade.load(str(folder)).encode_documents("cats sleep").to_dense()
    assert (ours == splade.load(str(results)).encode_documents("cats sleep").to_dense()).all()


def snippets(text):
    return [block.split("```", 1)[0] for block in text.split("```python\n")[1:]]


def test_the_code_in_the_card_runs(tmp_path, results, monkeypatch):
    pytest.importorskip("sentence_transformers", reason="needs the extra sentence-transformers")
    push(experiment(tmp_path, results))
    monkeypatch.chdir(tmp_path)
    spaces = []
    for code in snippets(card(tmp_path / "pushed")[1]):
        spaces.append({})
        exec(code, spaces[-1])
    vectors = next(space["vectors"] for space in spaces if "vectors" in space)
    expected = splade.load(str(results)).encode_documents("Air scatters blue light more than red.").to_dense()
    assert abs(vectors.numpy() - expected).max() < 1e-4


def test_upload(tmp_path, results, hub):
    keys = ["push.repo_id=me/model", "push.license=apache-2.0"]
    push(experiment(tmp_path, results))
    readme = tmp_path / "pushed" / "README.md"
    readme.write_text(readme.read_text() + "\nRead with care.\n")
    shown = push(experiment(tmp_path, results, *keys)).summary()
    assert "uploaded as it is" in shown and f"http://127.0.0.1:{hub.server_port}/me/model" in shown
    # Older releases of the library say {"private": true}.
    assert hub.created[0]["name"] == "model" and "private" in (hub.created[0].get("visibility"), *hub.created[0])
    assert {token for _, token in hub.asked} == {"Bearer hf_of_a_test"}
    sent = {path: (tmp_path / "pushed" / path).read_bytes() for path in hub.files}
    assert sent == hub.files and b"Read with care." in hub.files["README.md"]
    assert {"model.safetensors", "config.json", "modules.json", "1_SpladePooling/config.json"} <= set(hub.files)
    assert "pushed_model.json" not in hub.files


def test_what_cannot_be_uploaded(tmp_path, results, hub, monkeypatch):
    with pytest.raises(ConfigError, match="push.repo_id needs push.license"):
        push(experiment(tmp_path, results, "push.repo_id=me/model"))
    keys = ["push.license=mit", "push.repo_id=me/model"]
    hub.status = 403
    with pytest.raises(SpladeError, match="push.repo_id=me/model: http://127.0.0.1:.* refuses"):
        push(experiment(tmp_path, results, *keys))
    with pytest.raises(ConfigError, match="must be owner/name"):
        push(experiment(tmp_path, results, "push.license=mit", "push.repo_id=a/b/c"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SpladeError, match="cannot be reached.*is complete"):
        push(experiment(tmp_path, results, *keys))
    monkeypatch.setattr("splade.interop.hub_upload.get_token", lambda: None)
    with pytest.raises(ConfigError, match="hf auth login"):
        push(experiment(tmp_path, results, *keys))


def test_a_folder_that_is_there_is_not_replaced(tmp_path, results, tiny_model):
    push(experiment(tmp_path, results))
    with pytest.raises(ConfigError, match="is there already, with a card that may be edited"):
        push(experiment(tmp_path, results))
    other = experiment(tmp_path, tiny_model(seed=5), "push.repo_id=me/model", "push.license=mit")
    with pytest.raises(ConfigError, match="was not made from this model"):
        push(other)
    push(experiment(tmp_path, results, "config.overwrite=true"))
    assert not list(tmp_path.glob(".*.part"))
    (tmp_path / "pushed" / "pushed_model.json").unlink()
    for overrides in ([], ["config.overwrite=true"]):
        with pytest.raises(ConfigError, match="is no folder that splade.push made"):
            push(experiment(tmp_path, results, *overrides))


def test_limits_that_other_libraries_do_not_know_are_said(tmp_path, results):
    push(experiment(tmp_path, results, "config.matching_type=splade_topk", "init_dict.top_d=5"))
    head, text = card(tmp_path / "pushed")
    assert head["library_name"] == "splade" and "SparseEncoder(" not in text
    assert "init_dict.top_d=5 config.matching_type=splade_topk" in text and "other libraries give other vectors" in text


def test_a_trained_checkpoint(tmp_path, tiny_model):
    from splade.config.record import save_config
    from splade.models.load import build_splade
    from splade.models.save import save_splade
    from splade.training.run_folder import RunFolder

    keys = {
        "init_dict.model_type_or_dir": tiny_model(),
        "config.checkpoint_dir": tmp_path / "checkpoint",
        "config.out_dir": tmp_path / "out",
        "config.matching_type": "splade_doc",
        "init_dict.activation": "log1p_relu",
    }
    trained = compose_experiment("config_default", [f"{name}={value}" for name, value in keys.items()])
    folder = RunFolder(trained)
    assert folder.outcome() is None
    save_splade(build_splade(trained.init_dict, trained.config), folder.path, 64)
    save_config(trained, folder.path)
    folder.finish({"best": 0.25, "best_step": 1000, "monitored": "MRR@10"})
    push(trained)
    head, text = card(tmp_path / "checkpoint" / "hub")
    assert "license" not in head and "None is given yet" in text and "base_model" not in head  # it is a folder here
    for shown in ("after 1,000 steps, has MRR@10 0.2500", "Queries have an encoder of their own", "log(1 + log(1 +"):
        assert shown in text
    assert "torch.log1p(torch.log1p(" in text and "FLOPS" in text and "DATASET_PATH: `" in text
    assert (tmp_path / "checkpoint" / "hub" / "config.yaml").is_file()
    model = splade.load(str(Path(tmp_path / "checkpoint" / "hub")))
    assert set(model.encode_queries("cats").weights) == {1.0}
