#!/usr/bin/env bash
# Adapts a trained sparse model (SPLADE-tiny unless overridden) to a collection in BEIR format that has a train split:
#   bash scripts/adapt.sh BEIR_FOLDER OUT_FOLDER [Hydra overrides]
# The figures before and after, on the test split, are printed and written to OUT_FOLDER/summary.json. The same command
# goes on where an interrupted one was. Every step is a command of this project; the settings are in
# conf/config_domain_adaptation.yaml. Overrides go to every step: init_dict.model_type_or_dir=MODEL, beir.split=dev ...
set -euo pipefail
if [ "$#" -lt 2 ]; then
    echo "usage: bash scripts/adapt.sh BEIR_FOLDER OUT_FOLDER [Hydra overrides]" >&2
    exit 2
fi
data="$(realpath "$1")" out="$(realpath -m "$2")"
name="$(basename "$data")"
shift 2
for file in corpus.jsonl queries.jsonl qrels/train.tsv; do
    if [ ! -e "$data/$file" ] && [ ! -e "$data/$file.gz" ]; then
        echo "error: $data/$file: no such file; adapting needs a BEIR folder with a train split" >&2
        exit 1
    fi
done

cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
needed='import importlib.util as u, sys; sys.exit(None in map(u.find_spec, ["torch", "transformers", "hydra"]))'
if ! "$python" -c "$needed"; then
    source scripts/environment.sh
    make_environment .venv
    python=.venv/bin/python
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" SPLADE_CONFIG_NAME=config_domain_adaptation
unset SPLADE_CONFIG_FULLPATH

# step TASK KEY=VALUE... : one command, with what all of them share.
step() {
    local task="$1"
    shift
    echo "== splade.$task ($((SECONDS / 60)) min) =="
    "$python" -m "splade.$task" data.TRAIN_DATA_DIR="$data" config.checkpoint_dir="$out/checkpoint" \
        beir.dataset="$name" beir.dataset_path="$(dirname "$data")" "$@"
}
pretrained=config.pretrained_no_yamlconfig=true
encoding=(config.max_length=256 config.top_k=100)

# The model as it is: its figures, and the index in which it searches for the training queries.
step beir_eval $pretrained "${encoding[@]}" config.index_dir="$out/index/before" config.out_dir="$out/before" "$@"
# Its own ranking of the training queries: whatever it retrieves that is not judged relevant can be a hard negative.
step beir_eval $pretrained "${encoding[@]}" config.index_dir="$out/index/before" config.out_dir="$out/mined" "$@" \
    beir.split=train
# Training on it; some training queries are held out, and the checkpoint with the lowest loss on them is the model.
step train data.TRAIN.DATASET_PATH="$out/mined/beir/$name/run.json" "$@"
# The adapted model, on the same queries.
step beir_eval "${encoding[@]}" config.index_dir="$out/index/after" config.out_dir="$out/after" "$@"
step adapt config.out_dir="$out" "$@"
echo "$((SECONDS / 60)) min $((SECONDS % 60)) s"
