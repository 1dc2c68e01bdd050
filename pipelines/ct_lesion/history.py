"""Earlier treatment of the liver, as header texts tell of it, in English and Chinese.

ct_lesion was neither trained nor judged on livers after resection, ablation or embolisation
(clinical trial ChiCTR2500112344 excludes them).
"""

import re
from collections.abc import Iterable

_TREATMENT = re.compile(
    # no \b after an abbreviation: a Chinese character is a word character, and "TACE" often stands before one
    r"resect(?:ion|ed)|hepatectom\w+|(?:segment|lob)ectom\w+"
    r"|(?<![a-z])(?:c?TACE|DEB-?TACE|TAE|TARE|SIRT|Y-?90|RFA|MWA|PEI|OLT|LDLT|DDLT)(?![a-z])"
    r"|chemo-?emboli[sz]\w+|(?:radio-?)?emboli[sz]\w+|radio-?frequency|cryo-?ablat\w+|ablat(?:ion|ed|ive)"
    r"|transplant\w*|lipiodol"
    r"|切除|介入(?!科|室|放射|中心)|射频|消融|栓塞|移植|碘油|微波治疗",
    re.IGNORECASE,
)
#: Words that say that the treatment is not there, or is only thought of; looked for before the treatment ...
_NOT_BEFORE = re.compile(
    r"\b(?:no|not|non|never|without|w/o|denies|negative|before|pre|prior to|planned|planning|plan|plans|candidate"
    r"|evaluation|evaluate|evaluat\w+|assess\w*|work-?up|rule out|r/o|for|consider\w*|scheduled|awaiting|donor)\b"
    r"|无|未|没有|否认|拟|术前|计划|待|评估|非",
    re.IGNORECASE,
)
#: ... and after it.
_NOT_AFTER = re.compile(
    r"\b(?:planning|planned|candidate|evaluation|work-?up|assessment|donor|naive|scheduled|negative)\b"
    r"|-naive|前|评估|计划|供体|供者",
    re.IGNORECASE,
)
#: Words that say that it did happen; the word nearest to the treatment decides.
_DONE = re.compile(
    r"\b(?:after|post|s/p|status|prior|previous|earlier|history|hx|following|known|follow-?up|f/u|since)\b"
    r"|术后|后|既往|曾|史|复查",
    re.IGNORECASE,
)
_PRIOR_TO = re.compile(r"\bprior to\b", re.IGNORECASE)
_OTHER_ORGAN = re.compile(
    r"colon|colo-?rect\w*|\bcolectom\w+|bowel|rect(?:al|um)|gastr\w+|stomach|lung|pulmon\w+|pancrea\w+|renal|kidney"
    r"|prostat\w*|breast|bladder|uter\w+|ovar\w+|thyroid|cardiac|\batrial\b|\bheart\b|spleen|splenic|bone marrow"
    r"|stem cell"
    r"|oesoph\w+|esoph\w+|adrenal|brain"
    r"|结肠|直肠|胃|肺|胰|肾|前列腺|乳腺|膀胱|子宫|卵巢|甲状腺|心脏|房颤|脾|骨髓|干细胞|食管|肾上腺|胆囊",
    re.IGNORECASE,
)
_LIVER = re.compile(r"liver|hepat\w*|\bHCC\b|肝", re.IGNORECASE)
_CLAUSE = re.compile(r"[,;:，；：。.|\n]+|\band\b|\bbut\b", re.IGNORECASE)


def earlier_treatment(descriptions: Iterable[str]) -> str | None:
    """The first words that tell of earlier treatment of the liver, or None.

    descriptions : free header texts. "no prior resection", "pre-TACE", "evaluation for transplant" and treatment of
    another organ ("after colon resection") do not count.
    """
    for text in descriptions:
        for clause in _CLAUSE.split(text.replace("_", " ")):
            for match in _TREATMENT.finditer(clause):
                if _is_told_of(clause, match):
                    return match.group(0)
    return None


def _is_told_of(clause: str, match: re.Match[str]) -> bool:
    before, after = clause[: match.start()], clause[match.end() :]
    organ_context = before + " " + after[:12]
    if _OTHER_ORGAN.search(organ_context) and not _LIVER.search(clause):
        return False
    if re.match(r"\s*(?:[\w-]+\s+)?" + f"(?:{_NOT_AFTER.pattern})", after, re.IGNORECASE) and not re.match(
        r"\s*(?:术?后)", after
    ):
        return False
    # "prior to TACE" is not "prior TACE"
    marked = _PRIOR_TO.sub("before", before)
    negated = [hit for hit in _NOT_BEFORE.finditer(marked)]
    if not negated:
        return True
    if re.search(r"\b(?:no|not|never|without|w/o|denies|negative)\b|无|未|没有|否认", marked, re.IGNORECASE):
        return False  # "no history of previous TACE"
    done = [hit for hit in _DONE.finditer(marked)]
    return bool(done) and done[-1].start() > negated[-1].start()
