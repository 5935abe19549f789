"""Write the tables of the data card: `python data/artificial/make_tables.py`.

`rates.csv` from `judged.jsonl`, `counts.csv` and `worth.csv` from `runs.json`, which holds what
`python -m mediswift questions --json` said on the real abstracts.
"""

import json
from pathlib import Path

import pandas as pd

from mediswift import sheet
from mediswift.records import write_text

HERE = Path(__file__).parent


def rates() -> pd.DataFrame:
    """Errors by rule, with intervals, as text in percent."""
    table = sheet.error_rates(sheet.load(HERE / "judged.jsonl"))
    percent = table[["rate", "low", "high"]].map(lambda share: f"{share:.1%}")
    interval = percent["low"] + " to " + percent["high"]
    columns = {"rule": table.index, "read": table["read"].astype(int)}
    columns |= {"wrong": table["wrong"].astype(int), "error rate": percent["rate"]}
    return pd.DataFrame(columns | {"95 % interval": interval})


def counts() -> pd.DataFrame:
    """Questions by options, rule and label, with each run's seconds."""
    rows = []
    for run in json.loads((HERE / "runs.json").read_text(encoding="utf-8"))["runs"]:
        for rule, labels in run["questions"].items():
            seconds = f"{run['seconds']:.0f}" if rule == "all" else ""
            named = {"options": run["options"] or "none", "rule": rule}
            rows.append(named | labels | {"seconds": seconds})
    return pd.DataFrame(rows)


def worth() -> pd.DataFrame:
    """Statements with and without the tagger."""
    return pd.DataFrame([json.loads((HERE / "runs.json").read_text(encoding="utf-8"))["tagger"]])


if __name__ == "__main__":
    for name, table in (("rates", rates()), ("counts", counts()), ("worth", worth())):
        write_text(HERE / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
