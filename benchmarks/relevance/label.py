"""Write `labels.json`: which packages answer which question, by rules over Debian's own tags.

The rules were written from the questions and the list of tags. A look at the names of the packages that
they chose led to dropping two questions, tightening one rule and leaving out libraries and documentation
where a program is asked for; all that before any search ran. The rules themselves do not look at names,
descriptions or embeddings, which is all that a ranking sees. A question is here only
where the tags say what it asks for; a package without tags is not judged, so rankings are measured
among the tagged ones.

    python benchmarks/relevance/label.py
"""

import json
import os
from pathlib import Path

import pyarrow.parquet as pq

PROGRAM = "role::program"

# Question id → alternatives; a package answers if it has all tags of one of them.
RULES = {
    0: [[PROGRAM, "works-with::audio", "use::editing"]],
    3: [[PROGRAM, "works-with::image:vector", "use::editing"]],
    4: [[PROGRAM, "use::compressing"]],
    5: [[PROGRAM, "works-with::network-traffic", "use::monitor"]],
    7: [["use::typesetting", "works-with-format::tex"]],
    8: [
        [PROGRAM, "works-with::image", "use::organizing"],
        [PROGRAM, "works-with::image:raster", "use::organizing"],
    ],
    9: [
        [PROGRAM, "sound::player", "interface::commandline"],
        [PROGRAM, "sound::player", "interface::text-mode"],
    ],
    10: [
        ["made-of::font", f"culture::{language}"]
        for language in (
            "chinese",
            "taiwanese",
            "japanese",
            "korean",
            "thai",
            "bengali",
            "hindi",
            "mongolian",
        )
    ],
    11: [[PROGRAM, "web::browser"]],
    12: [[PROGRAM, "admin::recovery"]],
    13: [["security::cryptography", "works-with::mail"]],
    14: [
        [PROGRAM, "field::electronics", "use::simulating"],
        [PROGRAM, "field::electronics", "science::modelling"],
    ],
    15: [["works-with::biological-sequence"], ["biology::format:aln"]],
    16: [[PROGRAM, "works-with::3dmodel"]],
    17: [[PROGRAM, "admin::backup"]],
    19: [[PROGRAM, "x11::window-manager"]],
    20: [[PROGRAM, "hardware::emulation"]],
    23: [
        ["devel::lang:perl", "works-with::mail"],
        ["devel::lang:perl", "mail::smtp"],
        ["devel::lang:perl", "protocol::smtp"],
    ],
    26: [[PROGRAM, "security::antivirus"], [PROGRAM, "security::ids"]],
    27: [[PROGRAM, "accessibility::ocr"], [PROGRAM, "hardware::scanner"]],
    28: [[PROGRAM, "works-with::video", "use::editing"]],
    29: [[PROGRAM, "protocol::irc", "use::chatting"], [PROGRAM, "protocol::irc", "network::client"]],
    30: [[PROGRAM, "protocol::db:psql"], [PROGRAM, "suite::postgresql"]],
    32: [[PROGRAM, "game::typing"]],
    34: [
        [PROGRAM, "works-with::image", "use::converting"],
        [PROGRAM, "works-with::image:raster", "use::converting"],
    ],
    35: [["sound::speech"], ["accessibility::speech"]],
    37: [[PROGRAM, "devel::rcs"], [PROGRAM, "works-with::vcs"]],
    42: [["made-of::dictionary", "use::checking"]],
    45: [[PROGRAM, "game::board:chess"]],
    46: [[PROGRAM, "field::geography"]],
    49: [[PROGRAM, "works-with::logfile", "use::analysing"], [PROGRAM, "security::log-analyzer"]],
    51: [[PROGRAM, "protocol::dns", "network::server"]],
    53: [[PROGRAM, "protocol::bittorrent"]],
    56: [[PROGRAM, "works-with::music-notation"]],
    57: [[PROGRAM, "office::finance"], [PROGRAM, "field::finance"]],
}
NO_PROGRAMS = {"doc", "libdevel", "libs", "debug", "oldlibs", "introspection", "metapackages", "tasks"}
"""Sections whose packages are no programs, although some carry the tag of the source they are built from."""
LEAST = 4
"""Questions with fewer answers are left out: one package more or less would decide them."""


def answers(package, rule):
    """Return whether a package answers a question with this rule."""
    tags = set(package["tags"] or ())
    return any(
        tags.issuperset(every) and not (PROGRAM in every and package["section"] in NO_PROGRAMS)
        for every in rule
    )


def main():
    data = Path(os.environ.get("VECDATASET_TEST_DATA", "data"))
    columns = ["id", "tags", "section"]
    packages = pq.read_table(data / "debian-packages-20k.parquet", columns=columns).to_pylist()
    asked = pq.read_table(data / "questions.parquet", columns=["id", "question"])
    questions = dict(zip(asked["id"].to_pylist(), asked["question"].to_pylist(), strict=True))
    labels = []
    for question, rule in RULES.items():
        relevant = [p["id"] for p in packages if answers(p, rule)]
        if len(relevant) >= LEAST:
            text = questions[question]
            labels.append({"id": question, "question": text, "any_of": rule, "relevant": relevant})
    lines = ",\n".join(json.dumps(label) for label in labels)
    Path(__file__).with_name("labels.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
