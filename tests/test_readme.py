"""The README keeps its word: its code runs, its commands and files exist."""

import re
import shlex

from mediswift import __main__ as command_line
from mediswift import runner

README = (runner.ROOT / "README.md").read_text(encoding="utf-8")


def test_the_ten_lines_run(capsys):
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    exec(compile(code, "README.md", "exec"), {})
    assert "75.00% removed" in capsys.readouterr().out


def test_files_it_points_at_exist():
    linked = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert linked
    assert not [path for path in linked if not (runner.ROOT / path).exists()]


def test_commands_it_names_are_understood():
    makefile = (runner.ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|^ {4})make ([a-z]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    verbs = [v for v in re.findall(r"python -m mediswift ([^`]+)`", README)]
    assert verbs
    for verb in verbs:
        command_line.make_parser().parse_args(shlex.split(verb))


def test_no_path_of_one_machine_is_in_it():
    assert not re.findall(r"(?:^|[\s`(])(/\w+)", README, re.MULTILINE)
