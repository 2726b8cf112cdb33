"""A run's edited images in the layouts that the benchmarks' own scorers read: a file a format, which has the format's
name and a `LAYOUT`. `write.py` does the work. Nothing is imported here: `--help` names the formats."""

# What is typed, and the layout that it makes.
FORMATS = {
    "gedit": "MODEL/fullset/TASK/LANGUAGE/KEY.png and KEY_SRCIMG.png",
    "imgedit": "KEY.png",
    "risebench": "outputs/MODEL/images/CATEGORY/INDEX.png (of RISEBench++ too)",
    "kris": "results/MODEL/FOLDER/KEY.jpg",
    "magicbrush": "SESSION/SESSION_1.png and SESSION_inde_TURN.png",
    "wiseedit": "MODEL/SUBSET/LANGUAGE/ID.png",
    "gedit2": "MODEL/KEY.png and metadata.jsonl",
}
