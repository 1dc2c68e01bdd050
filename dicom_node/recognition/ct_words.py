"""What people write about a CT series: contrast phases and series that are no volume for a pipeline.

English, German, French, Spanish, Italian and Chinese, as radiographers abbreviate them.
"""

import re
import unicodedata
from dataclasses import dataclass

PHASES = ("plain", "arterial", "portal_venous", "delayed")


def normalised(text: str) -> str:
    """Lower case, one blank between words; letters, digits and Chinese characters never in one word."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("_", " ")
    text = re.sub(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])", " ", text)
    text = re.sub(r"(?<=[\u4e00-\u9fff])(?=[a-z])|(?<=[a-z])(?=[\u4e00-\u9fff])", " ", text)
    return " ".join(text.split())


@dataclass(frozen=True)
class Words:
    """The phases that a text names, with the words that do it."""

    phases: dict[str, str]  # phase -> the words found
    hints: dict[str, str]  # phase -> an abbreviation that means it only in the right company (AP, VP)

    @property
    def phase(self) -> str | None:
        """The one phase that the text names; None for none or several."""
        return next(iter(self.phases)) if len(self.phases) == 1 else None


_PATTERNS: dict[str, str] = {
    "arterial": r"""
        \b (?:early|late|fr[üu]h|sp[äa]t|pr[ée]coce|tard\w+)? \W*
           (?: (?:\b | (?<=sp[äa]t) | (?<=fr[üu]h)) art(?:\b|[ée]r\w*) | \b (?:h\W?a\W?p | e\W?a\W?p | l\W?a\W?p)\b )
        | \ba\W?phase\b | \barterio\w* | 动脉 | 動脈 | 動脉
    """,
    "portal_venous": r"""
        \bporta(?:l|ls|le|les|lven\w*)?\b | \bport[oa]\W?v\w+ | \bpv\W?p?h?\b | \bp\W?v\W?phase\b
        | \b(?:ven|venous|ven[oö]s\w*|veineu\w+|venos\w+)\b | \bhepatic\ venous\b
        | 门静脉 | 門靜脈 | 门脉 | 門脈 | (?<!腔)静脉 | (?<!腔)靜脈
    """,
    "delayed": r"""
        \bdel(?:ay(?:ed|s)?)?\b | \bequil\w* | \blate\b(?!\W*(?:art|ap|a\b|hap))
        | \bsp[äa]e?t\w*(?!\W*art) | \btard[iío]\w*(?!\W*art) | \bretard\w* | \bexcret\w* | \burogra\w*
        | \b(?:[3-9]|1\d|20)\ (?:min|mins|minutes|minuten|分)\b | 延迟 | 延遲 | 延时 | 平衡期 | 排泄
    """,
    "plain": r"""
        \bplain\b | \bnon?\W?(?:con(?:tr?\w*)?|enh\w*|ce?)\b | \bn\W?[ce]\W?ct\b | \bnativ\w* | \bunenh\w* | \bbasale?\b
        | \bpre\W?(?:con(?:tr\w*)?|inj\w*|kontr\w*)\b | \bwithout\b
        | \bw\W?o\W*(?:c|con\w*|iv|kontr\w*)?\b(?!\s*(?:&|and|und|\+))
        | \bsans\b | \bsin\ (?:c|contr\w*|civ)\b | \bohne\ (?:k\w*|km)\b | \bsenza\b
        | (?:^|[\s(\[/])c-(?=$|[\s)\]/]) | 平扫 | 平掃
    """,
}
_REGEXES = {phase: re.compile(pattern, re.VERBOSE) for phase, pattern in _PATTERNS.items()}
#: "late arterial" is arterial, "late venous" and "late portal" are late.
_LATE_ARTERIAL = re.compile(
    r"\b(?:late|sp[äa]e?t\w*|tard\w+)\W*(?:h\W?)?(?:art\w*|ap\b|hap\b)|\bart\w*\W*(?:tard\w+|late)\b"
)
_LATE_VENOUS = re.compile(r"\b(?:late|delayed|sp[äa]e?t)\W*(?:portal\W*)?(?:ven\w*|pv\w*)")
_SEVERAL = re.compile(
    r"\b(?:[2-5]|two|three|four|dual|bi|tri|tri?ple|quad\w*|multi)\W?phas\w*|[多双三]期|\b(?:mehr|drei|zwei)phas\w*"
)
_WITH_AND_WITHOUT = re.compile(
    r"\bw\W?(?:&|and|\+)?\W?w\W?o\b|\bwithout\W+(?:and|&|\+)\W+with\b|\bwith\W+(?:and|&|\+)\W+without\b"
)

#: AP is also a projection, and abdomen and pelvis; VP and DP are rare. They count beside a sibling of another phase.
_HINTS = {
    "arterial": re.compile(r"(?:^|\s|[(\[+,;:-])ap(?=$|[\s)\]+,;:-])"),
    "portal_venous": re.compile(r"(?:^|\s|[(\[+,;:-])vp(?=$|[\s)\]+,;:-])"),
    "delayed": re.compile(r"(?:^|\s|[(\[+,;:-])dp(?=$|[\s)\]+,;:-])"),
}
_NO_HINT = re.compile(
    r"\b(?:lat|pa|scout|topo\w*|surview|scano\w*|abd\w*|pelv\w*|chest|thorax|c\W?a\W?p|w|wo|with|contrast|con|kub|erect|supine)\b"
)


def words_of(text: str) -> Words:
    """Which phases a description names."""
    plain = normalised(text)
    found: dict[str, str] = {}
    if not plain or _SEVERAL.search(plain) or _WITH_AND_WITHOUT.search(plain):
        return Words({}, {})
    for phase, regex in _REGEXES.items():
        match = regex.search(plain)
        if match is not None:
            found[phase] = match.group().strip(" ([/-") or match.group()
    if "arterial" in found and "delayed" in found and _LATE_ARTERIAL.search(plain):
        del found["delayed"]
    if "portal_venous" in found and _LATE_VENOUS.search(plain):
        found = {"delayed": _LATE_VENOUS.search(plain).group()}  # type: ignore[union-attr]
    hints = {}
    if not found and not _NO_HINT.search(plain):
        hints = {phase: m.group().strip(" ([+,;:-") for phase, regex in _HINTS.items() if (m := regex.search(plain))}
    return Words(found, hints)


_EXTRAS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "localizer",
        re.compile(r"\b(?:scout\w*|topo(?:gram\w*)?|surview|scano\w*|localis\w*|localiz\w*|pilot)\b|定位"),
    ),
    (
        "bolus tracking",
        re.compile(
            r"\b(?:(?:pre)?monitoring|smart\W?prep|bolus\W?track\w*|care\W?bolus|test\W?bolus|timing\W?bolus|locator|"
            r"sure\W?start|tracker|trigger\w*)\b|(?:监测|團注|团注)"
        ),
    ),
    (
        "mpr",
        re.compile(r"\b(?:mpr|mip|min\W?ip|vrt?|ssd|3\ ?d\W?(?:vol\w*|recon\w*|render\w*)|curved)\b"),
    ),
    (
        "ct derived map",
        re.compile(
            r"\b(?:vnc|vue|iodine\W?(?:map|overlay|density)?|iod(?:karte|bild)|z\W?eff\w*|rho\W?z?|perfusion\W?map|"
            r"subtract\w*|subtraktion|electron\W?density)\b|碘图"
        ),
    ),
    (
        "bone kernel",
        re.compile(
            r"\b(?:bone|knochen\w*|lung|lungs|lunge\w*|poumons?|pulmonaire|hueso|osseu[xs]|polmon\w*)\b|骨|肺窗"
        ),
    ),
)


def extra_of(text: str) -> tuple[str, str] | None:
    """(kind, words) of a series that is none of the phases' soft-tissue volumes by what it is called; else None."""
    plain = normalised(text)
    for kind, regex in _EXTRAS:
        match = regex.search(plain)
        if match is not None:
            return kind, match.group()
    return None


def is_sharp_kernel(kernel: str) -> bool:
    """Whether a Convolution Kernel (0018,1210) is made for bone or lung. Unknown names are taken for soft."""
    text = kernel.split("\\")[0].strip().upper()
    if re.search(r"BONE|LUNG|EDGE|SHARP|ULTRA|DETAIL\+|肺|骨", text):
        return True
    siemens = re.match(r"([A-Z])([A-Z]?)(\d{2})[A-Z]?(?:\b|$)", text)
    if siemens and siemens[1] in "BHTUQI":
        return int(siemens[3]) >= 60 or (siemens[1] == "B" and siemens[2] == "L")
    canon = re.match(r"FC(\d{2})", text)
    if canon:
        number = int(canon[1])
        return 30 <= number <= 39 or 50 <= number <= 59 or 80 <= number <= 89
    return text in {"YB", "YC", "YD", "YE", "D", "E", "L", "EC", "LC"}  # Philips: sharp and lung filters
