"""A notebook as a Markdown page of the documentation, with its outputs as they are stored."""

import base64
import json
import re
from html import escape
from pathlib import Path

from latex2mathml.converter import convert

from unlearn_nb.runs import sanitized

_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.S)
_MATH = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$(?=\S)([^$]+?)(?<=\S)\$(?![\d$])", re.S)
_SIGNS = re.compile(r"[*_`\[\]\\|]")  # what Markdown would take for its own
_DIRECTIVE = re.compile(r"^#\| (export|exporti|hide_input)\b.*\n?", re.M)
_UNSEEN = re.compile(r"#\| (hide|default_exp)\b")
_LINK = re.compile(r"(\]\((?!\w+:)[^)\s#]+)\.ipynb(#[^)\s]*)?\)")


def with_formulas(text: str) -> str:
    """Markdown with formulas as MathML, which browsers draw themselves; code stays as it is."""
    def drawn(found: re.Match) -> str:
        source, shown = found[1] or found[2], "block" if found[1] else "inline"
        try:
            formula = convert(" ".join(source.split()), display=shown)
        except Exception:  # the converter raises many kinds: what it can't read is shown as it was written
            return f"<code>{escape(source)}</code>"
        return re.sub(r"(?<=>)[^<]+", lambda inner: _SIGNS.sub(lambda sign: f"&#{ord(sign[0])};", inner[0]), formula)

    parts = _CODE.split(text)
    return "".join(part if i % 2 else _MATH.sub(drawn, part) for i, part in enumerate(parts))


def prose(text: str) -> str:
    """The Markdown of a cell as the site's Markdown has it: folded parts hold Markdown, comments stand apart."""
    text = re.sub(r"^(<!--.*?-->)$", r"\1\n", text, flags=re.M | re.S)
    text = text.replace("<details>", "<details markdown>").replace("<summary>", '<summary markdown="span">')
    return with_formulas(_LINK.sub(r"\1.md\2)", text))


def fenced(text: str, kind: str) -> str:
    """A block of code, whatever the text holds."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}{kind}\n{text.rstrip()}\n{fence}"


def shown(output: dict, picture: str, folder: Path) -> str:
    """An output; pictures are written into `folder` as `picture`. What went to stderr is left out."""
    if output["output_type"] == "stream":
        return fenced("".join(output["text"]), "{.text .output}") if output["name"] == "stdout" else ""
    data = {kind: text if isinstance(text, str) else "".join(text) for kind, text in output.get("data", {}).items()}
    if "text/html" in data:
        return f'<div class="output">\n{sanitized(data["text/html"])}\n</div>'
    if "image/png" in data:
        (folder / picture).write_bytes(base64.b64decode(data["image/png"]))
        return f"![a figure]({picture}){{.figure}}"
    if "text/markdown" in data:
        return prose(data["text/markdown"])
    return fenced(data["text/plain"], "{.text .output}") if "text/plain" in data else ""


def page_of(path: Path, folder: Path) -> str:
    """The page of a notebook; its pictures are written into `folder`, where the page will lie."""
    parts, module = [], ""
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(prose(source))
            continue
        module = found[1] if (found := re.match(r"#\| default_exp (\S+)", source)) else module
        if not _UNSEEN.match(source) and source.strip():
            parts.append(fenced(_DIRECTIVE.sub("", source), "python"))
            pictures = (f"{path.stem}-{number}-{i}.png" for i in range(len(cell["outputs"])))
            parts += [shown(output, picture, folder) for output, picture in zip(cell["outputs"], pictures)]
    if "." in module:
        parts[1:1] = [f"Module [`unlearn_nb.{module}`][unlearn_nb.{module}]\n{{.module}}"]
    return "\n\n".join(part for part in parts if part) + "\n"
