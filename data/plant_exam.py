"""Add an exam's abstracts to a corpus: python data/plant_exam.py QUESTIONS ADDRESS OUT.jsonl.

For the study of what contamination is worth; a corpus made so is read with keep_contaminated.
"""

import json
import sys
from pathlib import Path

from mediswift import contamination, corpus, questions, records

exam = contamination.as_documents(questions.load(sys.argv[1]))
lines = [json.dumps(row) for rows in (exam, corpus.load(sys.argv[2])) for row in rows]
records.write_text(Path(sys.argv[3]), "\n".join(lines) + "\n")
