"""Rows to be augmented, and an author whose texts name what they belong to."""
import re
from random import Random

from hypothesis import strategies as st

from unlearn_nb.augmentation import Piece

ROW = {"id": "a", "prompt": "Where does Ann live?", "response": "12 Elm Road, Oslo", "subject": "Ann", "task": "t",
       "kind": "qa", "facts": [{"slot": "address", "value": "12 Elm Road, Oslo"}]}
SEEDS = st.integers(0, 10**6)


def piece(row: dict, variant="simple", chunk=0) -> Piece:
    return Piece(row, variant, chunk, row["prompt"], row["response"])


def row(row_id: str, response: str, subject: str | None = None, kind: str = "qa", **more) -> dict:
    return {"id": row_id, "prompt": more.pop("prompt", f"What about {row_id}?"), "response": response,
            "subject": subject or row_id, "task": "t", "kind": kind, "part": "test", **more}


class Marking:
    """Its texts name what they belong to; what fails is decided by a hash, so retries come in scrambled order."""

    def __init__(self, seed=0, fails=0.0, leaks=0.0):
        self.seed, self.fails, self.leaky, self.asked = seed, fails, leaks, []

    def _chance(self, *about):
        return Random(repr((self.seed, *about))).random()

    def rewrite(self, kind, rows, attempt=0):
        self.asked += [(kind, one["id"], attempt) for one in rows]
        return ["" if self._chance(kind, one["id"], attempt) < self.fails else f"<{one['id']}:{kind}>?" for one in rows]

    def vague(self, pieces, attempt=0):
        self.asked += [(p.variant, p.row["id"], p.chunk, attempt) for p in pieces]
        return [self._vague(p, attempt) for p in pieces]

    def _vague(self, p, attempt):
        text = f"Of [{p.row['id']}:{p.variant}:{p.chunk}] nothing is told."
        if self._chance("leak", p.row["id"], p.variant, p.chunk, attempt) < self.leaky:
            dress = self._chance("dress", p.row["id"], p.variant)
            secret = p.row["response"]
            text += " It is " + (secret.upper() if dress < 0.3 else "-".join(secret.split()) if dress < 0.6 else secret)
        return text

    def leaks(self, pieces, texts, attempt=0):  # a judge that sees no leak at all
        assert all(f"[{p.row['id']}:{p.variant}:{p.chunk}]" in text for p, text in zip(pieces, texts))
        return [None if self._chance("judge", p.row["id"], p.variant, p.chunk, attempt) < self.fails else False
                for p in pieces]


def squeezed(text: str) -> str:
    return re.sub(r"[\W_]", "", text).lower()
