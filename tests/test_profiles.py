"""Clusters: the profiles that ship are understood, and a study's jobs ask for what they need.

No cluster is needed: dry runs, and stand-ins for the commands of Slurm.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_runner import make_notebook, make_study

from mediswift import __main__ as command_line
from mediswift import runner

NEEDS = {
    "slurm": ["snakemake_executor_plugin_slurm"],
    "kubernetes": ["snakemake_executor_plugin_kubernetes", "snakemake_storage_plugin_fs"],
}
SMALL = runner.ROOT / "studies" / "small.yaml"
TINY = runner.ROOT / "studies" / "tiny.yaml"


def need(profile):
    missing = [name for name in NEEDS[profile] if not importlib.util.find_spec(name)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: pip install 'mediswift[cluster]'")


def read(profile):
    return yaml.safe_load((runner.ROOT / "profiles" / profile / "config.yaml").read_text("utf-8"))


@pytest.fixture
def root(tmp_path):
    """Folder with the project in it, and nothing done."""
    for name in ("notebooks", "mediswift", "results"):
        (tmp_path / name).symlink_to(runner.ROOT / name)
    return tmp_path


def planned(profile, study, root, monkeypatch):
    """Jobs of a dry run: one text each."""
    need(profile)
    for name in ("MEDISWIFT_DATA", "MEDISWIFT_CACHE"):
        monkeypatch.setenv(name, str(root))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(runner.ROOT / "Snakefile")]
    command += ["--directory", str(root), "--dry-run", "--nolock"]
    command += ["--config", f"study={study}", f"root={root}"]
    place = root / "config.yaml"  # the profile, with the project where it is here
    content = read(profile)
    if "default-storage-prefix" in content:
        content["default-storage-prefix"] = str(root)
    place.write_text(yaml.safe_dump(content), encoding="utf-8")
    command += ["--profile", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split("\nrule notebook:")[1:]


@pytest.mark.parametrize("profile", NEEDS)
def test_a_dry_run_plans_every_notebook_with_its_gpu(root, monkeypatch, profile):
    found = planned(profile, SMALL, root, monkeypatch)
    monkeypatch.setenv("MEDISWIFT_DATA", str(root))
    assert len(found) == len(runner.jobs(SMALL, root)) == 19
    assert all(re.search(r"resources: .*mem_mb=32000.* gpu=1\b", job) for job in found)


def test_a_study_that_asks_for_no_gpu_gets_none(root, monkeypatch):
    found = planned("slurm", TINY, root, monkeypatch)
    assert len(found) == 7
    assert not any(re.search(r"\bgpu=", job) for job in found)


def test_on_kubernetes_all_that_a_notebook_reads_and_makes_is_on_the_volume(root, monkeypatch):
    # a file outside storage would make Snakemake run the notebook where it was called
    found = planned("kubernetes", TINY, root, monkeypatch)
    inputs = re.search(r"input: (.*)", found[0])[1].split(", ")
    assert f"{root}/notebooks/01_corpus.ipynb (retrieve from storage)" in inputs
    assert all(path.startswith(f"{root}/") and path.endswith("storage)") for path in inputs)
    assert f"output: {root}/runs/notebooks/tiny/01_corpus.ipynb (send to storage)" in found[0]
    (volume,) = read("kubernetes")["kubernetes-persistent-volumes"]
    assert read("kubernetes")["default-storage-prefix"] == volume.partition(":")[2]


@pytest.mark.parametrize("profile", NEEDS)
def test_profiles_name_the_executor_and_hold_no_secret_of_a_site(profile):
    content = read(profile)
    assert content["executor"] == profile
    assert content["jobs"] > 1
    assert not {"slurm_account", "slurm_partition"} & content["default-resources"].keys()


def test_the_command_line_takes_a_profile_or_cores(monkeypatch, capsys):
    parse = command_line.make_parser().parse_args
    assert parse(["study", "x.yaml", "--profile", "profiles/slurm"]).profile.name == "slurm"
    with pytest.raises(SystemExit):
        parse(["study", "x.yaml", "--profile", "profiles/slurm", "--cores", "2"])
    assert "not allowed with" in capsys.readouterr().err


def test_a_profile_takes_the_place_of_cores(root, monkeypatch):
    commands = []
    monkeypatch.setattr(runner, "supervise", lambda words: commands.append(words) or 0)
    monkeypatch.chdir(runner.ROOT)
    runner.run_study(TINY, root=root, profile=Path("profiles/slurm"))
    runner.run_study(TINY, 2, root)
    place = commands[0].index("--profile")
    assert commands[0][place + 1] == str(runner.ROOT / "profiles" / "slurm")
    assert "--cores" not in commands[0] and "--profile" not in commands[1]
    assert commands[1][commands[1].index("--cores") + 1] == "2"


def test_a_profile_that_is_not_there_is_refused_before_anything_starts(root):
    with pytest.raises(FileNotFoundError, match="profiles/ has kubernetes, slurm"):
        runner.run_study(TINY, root=root, profile=root / "lsf")
    assert not (root / "runs").exists()


SBATCH = """\
#!/bin/sh
echo "$@" >> "$SLURM_STANDIN/calls"
number=$$
for word in "$@"; do case "$word" in --wrap=*) job="${word#--wrap=}" ;; esac; done
[ "$job" ] || job=$(cat)
SLURM_JOB_ID=$number sh -c "$job" > "$SLURM_STANDIN/out.$number" 2>&1
echo $? > "$SLURM_STANDIN/code.$number"
echo $number
"""
SRUN = """\
#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
exec "$@"
"""
SACCT = """\
#!/bin/sh
case "$*" in *Account*) echo lab; exit ;; esac
for file in "$SLURM_STANDIN"/code.*; do
  [ "$(cat "$file")" = 0 ] && state=COMPLETED || state=FAILED
  echo "${file##*.}|$state"
done
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Folder of stand-ins for Slurm's commands, which do each job at once, here."""
    need("slurm")
    folder = tmp_path / "slurm"
    folder.mkdir()
    texts = {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scancel": "#!/bin/sh\n"}
    texts |= {"sacctmgr": "#!/bin/sh\necho lab\n", "sinfo": "#!/bin/sh\necho 'gpus*'\n"}
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("SLURM_STANDIN", str(folder))
    python = Path(sys.executable).parent  # jobs call snakemake by its name
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), str(python), os.environ["PATH"]]))
    return folder


@pytest.mark.slow
def test_executed_notebooks_come_back_from_the_queue_and_failed_ones_too(tmp_path, slurm):
    root = tmp_path / "a project"
    for name, line in (("one", "print(seed)"), ("two", "1 / seed")):
        make_notebook(root / "notebooks" / f"{name}.ipynb", line)
    study = make_study(root, gpus=1, grid={"seed": [0, 1]})
    left = runner.run_study(study, root=root, profile=runner.ROOT / "profiles" / "slurm")
    logs = "".join(path.read_text() for path in slurm.glob("out.*"))
    assert [job.name for job in left] == ["two-seed0"], logs
    made = sorted(path.name for path in left[0].output.parent.glob("[!.]*"))  # locks are hidden
    assert made == [
        "one-seed0.ipynb", "one-seed1.ipynb", "two-seed0.failed.ipynb", "two-seed1.ipynb",
    ]  # fmt: skip
    asked = (slurm / "calls").read_text().splitlines()
    assert len(asked) == 4
    assert all("--mem 32000" in line and "--cpus-per-task=8" in line for line in asked)
    assert all("-t 1440" in line and re.search(r"--gpus(=| )1", line) for line in asked)


@pytest.mark.parametrize("count", [-1, 1.5, True, "all"])
def test_gpus_are_a_whole_number(root, count):
    study = make_study(root, gpus=count)
    with pytest.raises(ValueError, match="gpus is a whole number, 0 or more; .* has"):
        runner.gpus(study)
