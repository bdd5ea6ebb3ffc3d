"""What splade.explain shows: a bag of words, a score, a difference; each as text, as JSON values, and as HTML."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Protocol

from splade.errors import printable
from splade.inspection.explanation import Explanation
from splade.inspection.term_differences import TermDifference
from splade.inspection.traced_text import TracedText
from splade.storage.atomic import JsonObject

_BAR = 30
_OWN, _EXPANSION = "█", "░"
_LONGEST_TITLE = 200


class View(Protocol):
    """Something that is shown."""

    def text(self, top: int) -> str:
        """Return it for a terminal, with the `top` terms."""

    def values(self) -> JsonObject:
        """Return all of it as values that JSON can hold."""

    def html(self, top: int) -> str:
        """Return it as a section of a page, with the `top` terms."""


@dataclass(frozen=True)
class BagView:
    """A text as its bag of words.

    Attributes:
        title: what the text is.
        traced: its vector, and which tokens made it.
        model: name of the model.
    """

    title: str
    traced: TracedText
    model: str

    def text(self, top: int) -> str:
        """Return bars, heaviest first: full ones for the text's own tokens, light ones for the model's expansion."""
        bag = self.traced.bag()
        lines = [_title(self.title), f"{len(bag)} terms of {self.model}{self._expansion()}"]
        heaviest = bag[0][1] if bag else 1.0
        for token, weight, source in bag[:top]:
            mark = _OWN if token in self.traced.own else _EXPANSION
            bar = mark * max(1, round(_BAR * weight / heaviest))
            lines.append(
                f"  {printable(token):<18} {weight:6.3f}  {bar:<{_BAR}}  {printable(str(source or ''))}".rstrip()
            )
        if len(bag) > top:
            lines.append(f"  and {len(bag) - top} lighter terms")
        return "\n".join(lines)

    def values(self) -> JsonObject:
        """Return terms with weights and the tokens that gave them, and what each token gave in all."""
        terms = [
            {"term": token, "weight": weight, "own": token in self.traced.own, "from": _source(source)}
            for token, weight, source in self.traced.bag()
        ]
        totals = zip(self.traced.inputs, self.traced.input_totals, strict=True)
        inputs = [{"token": token, "weight": weight} for token, weight in totals]
        return {"kind": "bag", "title": self.title, "model": self.model, "terms": terms, "inputs": inputs}

    def html(self, top: int) -> str:
        """Return the text with its tokens shaded by what they gave, and bars."""
        bag = self.traced.bag()
        heaviest = bag[0][1] if bag else 1.0
        rows = [
            _row(
                token,
                weight / heaviest,
                *(f"{weight:.3f}", str(source or "")),
                kind="own" if token in self.traced.own else "new",
            )
            for token, weight, source in bag[:top]
        ]
        note = f"{len(bag)} terms of {self.model}{self._expansion()}"
        return _section(self.title, note, _shaded(self.traced) + _table(("term", "", "weight", "from token"), rows))

    def _expansion(self) -> str:
        if not self.traced.inputs:
            return ""
        count = sum(token not in self.traced.own for token, _, _ in self.traced.bag())
        return f", {count} of them expansion ({_EXPANSION}); the others ({_OWN}) are the text's own"


@dataclass(frozen=True)
class ScoreView:
    """A score as the terms that made it.

    Attributes:
        title: which query and document.
        explanation: the terms.
        model: name of the model.
    """

    title: str
    explanation: Explanation
    model: str

    def text(self, top: int) -> str:
        """Return a table of terms, shares, weights and tokens."""
        return f"{_title(self.title)}\n{printable(self.explanation.render(top))}"

    def values(self) -> JsonObject:
        """Return all terms with their shares."""
        found = self.explanation
        terms = [
            asdict(part) | {"score": part.score, "share": part.score / found.score} for part in found.contributions
        ]
        lacking = [{"token": token, "query_weight": weight} for token, weight in found.query_only]
        own = {"kind": "score", "title": self.title, "model": self.model, "score": found.score}
        return own | {"terms": terms, "query_only": lacking}

    def html(self, top: int) -> str:
        """Return bars of shares."""
        parts = self.explanation.contributions
        rows = []
        for part in parts[:top]:
            sources = f"{part.query_from or '-'} → {part.doc_from or '-'}"
            cells = f"{part.score / self.explanation.score:.1%}", f"{part.query_weight:.2f} × {part.doc_weight:.2f}"
            rows.append(_row(part.token, part.score / parts[0].score, *cells, sources, kind="own"))
        note = f"{self.explanation.render(top=0).splitlines()[0]}, by {self.model}"
        headings = ("term", "", "share", "query × document", "query token → document token")
        return _section(self.title, note, _table(headings, rows))


@dataclass(frozen=True)
class DifferenceView:
    """Two lists of terms side by side.

    Attributes:
        title: what is compared, in what unit.
        names: of both sides.
        rows: the terms, largest difference first.
        percent: the values are shares.
    """

    title: str
    names: tuple[str, str]
    rows: Sequence[TermDifference]
    percent: bool = False

    @property
    def totals(self) -> tuple[float, float]:
        """Sums of both sides."""
        return sum(row.first for row in self.rows), sum(row.second for row in self.rows)

    def text(self, top: int) -> str:
        """Return a table; bars go left where the second side has more, right where the first has."""
        lines = [_title(self.title), f"  A: {printable(self.names[0])}", f"  B: {printable(self.names[1])}"]
        lines.append(f"  {'':<18} {'A':>8} {'B':>8} {'A - B':>8}")
        largest = max((abs(row.difference) for row in self.rows), default=0.0) or 1.0
        half = _BAR // 2
        for row in self.rows[:top]:
            length = round(half * abs(row.difference) / largest)
            bar = f"{_OWN * length if row.difference < 0 else '':>{half}}|{_OWN * length if row.difference > 0 else ''}"
            numbers = " ".join(f"{self._number(value):>8}" for value in (row.first, row.second, row.difference))
            lines.append(f"  {printable(row.token):<18} {numbers}  {bar}")
        if len(self.rows) > top:
            rest = self.rows[top:]
            values = sum(row.first for row in rest), sum(row.second for row in rest)
            numbers = " ".join(f"{self._number(value):>8}" for value in (*values, values[0] - values[1]))
            lines.append(f"  {f'{len(rest)} further terms':<18} {numbers}")
        numbers = " ".join(f"{self._number(value):>8}" for value in (*self.totals, self.totals[0] - self.totals[1]))
        return "\n".join([*lines, f"  {'all':<18} {numbers}"])

    def values(self) -> JsonObject:
        """Return all terms."""
        rows = [asdict(row) | {"difference": row.difference} for row in self.rows]
        names = dict(zip(("first", "second"), self.names, strict=True))
        return (
            {"kind": "difference", "title": self.title, "unit": "share" if self.percent else "score"}
            | names
            | {"terms": rows}
        )

    def html(self, top: int) -> str:
        """Return bars of the differences, blue where the first side has more."""
        largest = max((abs(row.difference) for row in self.rows), default=0.0) or 1.0
        rows = [
            _row(
                row.token,
                abs(row.difference) / largest,
                *(self._number(value) for value in (row.first, row.second, row.difference)),
                kind="own" if row.difference > 0 else "new",
            )
            for row in self.rows[:top]
        ]
        note = f"A: {self.names[0]} · B: {self.names[1]} · blue: A has more, brown: B has more"
        return _section(self.title, note, _table(("term", "", "A", "B", "A − B"), rows))

    def _number(self, value: float) -> str:
        return f"{value:.1%}" if self.percent else f"{value:.3f}"


def _title(title: str) -> str:
    shown = title if len(title) <= _LONGEST_TITLE else f"{title[:_LONGEST_TITLE]} ..."
    return f"== {printable(shown)} =="


def _source(source: object) -> JsonObject | None:
    return None if source is None else asdict(source)  # type: ignore[call-overload]


def _section(title: str, note: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{escape(note)}</p>{body}</section>"


def _table(headings: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _row(token: str, share: float, *cells: str, kind: str) -> str:
    bar = f'<td class="bar"><span class="{kind}" style="width:{100 * share:.1f}%"></span></td>'
    others = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr><th><span class="{kind}-word">{escape(token)}</span></th>{bar}{others}</tr>'


def _shaded(traced: TracedText) -> str:
    totals = traced.input_totals
    most = max(totals, default=0.0) or 1.0
    pieces = [
        f'<span style="background:rgb(11 92 173 / {0.6 * total / most:.2f})" title="{total:.2f}">{escape(token)}</span>'
        for token, total in zip(traced.inputs, totals, strict=True)
    ]
    return f'<p class="tokens">{" ".join(pieces)}</p>' if pieces else ""
