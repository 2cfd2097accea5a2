"""Damage to one file of an input, guided by which lines of the readers it reaches, by Atheris.

    python tests/fuzz/fuzz_reader.py KIND FILE [options of libFuzzer] CORPUS

KIND is one of `tiltflow.experiments.fuzz_inputs.KINDS`, FILE the name of a file in a whole input of
it, CORPUS a folder, in which what reached something new is kept. Where a reader does anything but
read or refuse, Atheris stops and keeps the file. It is no test of the suite; see docs/testing.md.
"""

import json
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

READERS = ("tiltflow.data", "tiltflow.models.files", "tiltflow.estimator_config", "zipfile")

with atheris.instrument_imports(include=[*READERS, "tiltflow.report.watch", "json"]):
    from tiltflow.experiments.bench_fuzz import try_to_read
    from tiltflow.experiments.fuzz_inputs import KINDS, mangled, put, whole
    from tiltflow.experiments.mangled_files import CANARY

STARTS = 40


def main() -> None:
    """Put whole and mangled files into the corpus, then fuzz."""
    kind, name, *options = sys.argv[1:]
    if kind not in KINDS or name not in whole(kind):
        known = ", ".join(f"{each} ({', '.join(whole(each))})" for each in KINDS)
        sys.exit(f"{kind} {name}: no such input; there are {known}")
    files = whole(kind)
    if name == "model.safetensors":  # or no damage would come past the digest
        config = json.loads(files["config.json"])
        del config["arrays_sha256"]
        files = {**files, "config.json": json.dumps(config).encode()}
    corpus = Path(options[-1])
    corpus.mkdir(parents=True, exist_ok=True)
    (corpus / "whole").write_bytes(files[name])
    for number in range(STARTS):
        damaged = mangled(kind, 0, number).get(name, b"")
        if len(damaged) < 100_000:
            (corpus / f"mangled-{number}").write_bytes(damaged)
    folder = Path(tempfile.mkdtemp())

    def read(content: bytes) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        put(folder, {**files, name: content})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome, said = try_to_read(kind, folder)
        if outcome not in ("read", "refused") or CANARY.exists():
            raise AssertionError(f"{outcome}: {said}")

    atheris.Setup([sys.argv[0], *options], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
