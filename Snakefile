# A study's notebooks as rules: what is done stays done, and a change runs again what depends on it.
# Called by `python -m mediswift study studies/NAME.yaml`; `--profile profiles/slurm` has a cluster do it.
# Paths are relative to the project, which is what a storage of Snakemake's expects.
import shutil
from pathlib import Path

from mediswift import runner

STUDY, ROOT = Path(config["study"]), Path(config["root"])
JOBS = {job.name: job for job in runner.jobs(STUDY, ROOT)}
HOME = ROOT if Path(ROOT, "mediswift").is_dir() else runner.ROOT
FOLDER = Path("runs", "notebooks", STUDY.stem)
GPUS = runner.gpus(STUDY)


def near(path):
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


LIBRARY = [near(path) for path in sorted(Path(HOME, "mediswift").glob("*.py"))]
RESULTS = [near(path) for path in sorted(Path(HOME, "results").rglob("*.json"))]  # pages show them


rule all:
    input:
        [FOLDER / f"{name}.ipynb" for name in JOBS],


rule notebook:
    input:
        notebook=lambda wildcards: near(JOBS[wildcards.job].notebook),
        after=lambda wildcards: [FOLDER / path.name for path in JOBS[wildcards.job].after],
        library=LIBRARY,
        results=RESULTS,
    output:
        FOLDER / "{job}.ipynb",
    params:
        values=lambda wildcards: JOBS[wildcards.job].parameters,
    resources:
        **({"gpu": GPUS} if GPUS else {}),
    run:
        print(f"{wildcards.job} ...", flush=True)
        job = JOBS[wildcards.job]
        kept = job.output  # in the project, so that a failed one comes back too
        runner.run_apart(job.notebook, params.values, kept)
        if kept.resolve() != Path(output[0]).resolve():
            shutil.copyfile(kept, output[0])  # the node's own copy, which goes into storage
        print(f"{wildcards.job} took {runner.seconds_of(kept):.0f} s", flush=True)
