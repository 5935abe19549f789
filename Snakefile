# A study's notebooks as rules: what is done stays done, and a change runs again what depends on it.
# Called by `python -m mediswift study studies/NAME.yaml`; works with any Snakemake executor.
from pathlib import Path

from mediswift import runner

STUDY = Path(config["study"])
JOBS = {job.name: job for job in runner.jobs(STUDY, Path(config["root"]))}
LIBRARY = sorted(Path(runner.ROOT, "mediswift").glob("*.py"))
RESULTS = sorted(Path(runner.ROOT, "results").rglob("*.json"))  # pages show records too
FOLDER = Path("runs", "notebooks", STUDY.stem)


rule all:
    input:
        [FOLDER / f"{name}.ipynb" for name in JOBS],


rule notebook:
    input:
        notebook=lambda wildcards: JOBS[wildcards.job].notebook,
        after=lambda wildcards: [FOLDER / path.name for path in JOBS[wildcards.job].after],
        library=LIBRARY,
        results=RESULTS,
    output:
        FOLDER / "{job}.ipynb",
    params:
        values=lambda wildcards: JOBS[wildcards.job].parameters,
    run:
        print(f"{wildcards.job} ...", flush=True)
        seconds = runner.run(Path(input.notebook), params.values, Path(output[0]))
        print(f"{wildcards.job} took {seconds:.0f} s", flush=True)
