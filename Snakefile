# A study's notebooks as rules: what is done stays done, and a change runs again what depends on it.
# Called by `python -m mediswift study studies/NAME.yaml`; `--profile profiles/slurm` has a cluster do it.
# What is read lies where the project lies, on every node: it is `local`, and no storage moves it.
import shutil
from pathlib import Path

from mediswift import runner

STUDY = Path(config["study"])
JOBS = {job.name: job for job in runner.jobs(STUDY, Path(config["root"]))}
LIBRARY = sorted(Path(runner.ROOT, "mediswift").glob("*.py"))
RESULTS = sorted(Path(runner.ROOT, "results").rglob("*.json"))  # pages show records too
FOLDER = Path("runs", "notebooks", STUDY.stem)
GPUS = runner.gpus(STUDY)


rule all:
    input:
        [FOLDER / f"{name}.ipynb" for name in JOBS],


rule notebook:
    input:
        notebook=local(lambda wildcards: JOBS[wildcards.job].notebook),
        after=lambda wildcards: [FOLDER / path.name for path in JOBS[wildcards.job].after],
        library=local(LIBRARY),
        results=local(RESULTS),
    output:
        FOLDER / "{job}.ipynb",
    params:
        values=lambda wildcards: JOBS[wildcards.job].parameters,
    resources:
        **({"gpu": GPUS} if GPUS else {}),
    run:
        print(f"{wildcards.job} ...", flush=True)
        kept = JOBS[wildcards.job].output  # beside the project, so that a failed one comes back too
        seconds = runner.run(Path(input.notebook), params.values, kept)
        if kept.resolve() != Path(output[0]).resolve():
            shutil.copyfile(kept, output[0])  # the node's own copy, which goes into storage
        print(f"{wildcards.job} took {seconds:.0f} s", flush=True)
