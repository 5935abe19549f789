"""Make data/exam.safetensors: python data/make_exam.py PATH_OF_ori_pqal.json.

Hashes of PubMedQA's labeled items, by which their text is found in a corpus. No text is in it.
"""

import json
import sys

from mediswift import contamination, demo, questions

items = {item["pmid"]: item for item in questions.load(sys.argv[1])}
order = json.loads((demo.DATA / "pubmedqa_labels.json").read_text(encoding="utf-8"))
exam = contamination.make_exam([items[pmid] for pmid in order])
contamination.save_exam(exam, contamination.FILE)
