"""Add an exam's abstracts to a corpus: python data/plant_exam.py QUESTIONS ADDRESS OUT.jsonl [N].

N takes only the first N documents at ADDRESS, so that the exam is a larger part of what is read.
For the study of what contamination is worth; a corpus made so is read with keep_contaminated.
"""

import json
import sys
from itertools import chain, islice
from pathlib import Path

from mediswift import contamination, corpus, questions, records

exam = contamination.as_documents(questions.load(sys.argv[1]))
documents = islice(corpus.load(sys.argv[2]), int(sys.argv[4]) if len(sys.argv) > 4 else None)
lines = [json.dumps(row) for row in chain(exam, documents)]
records.write_text(Path(sys.argv[3]), "\n".join(lines) + "\n")
