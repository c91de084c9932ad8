"""What the site takes from outside this folder: the README, the changelog, the examples; and links to them."""

import re
from pathlib import Path, PurePosixPath

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(#[^)\s]*)?(?=\))")


def _outside() -> dict[str, Path]:
    """Return the pages that are made, and of what."""
    scripts = {f"examples/{path.stem}.md": path for path in sorted((ROOT / "examples").glob("*.py"))}
    return {
        "index.md": ROOT / "README.md",
        "changelog.md": ROOT / "CHANGELOG.md",
        "examples/README.md": ROOT / "examples" / "README.md",
        "hostile.md": ROOT / "tests" / "hostile" / "README.md",
        **scripts,
    }


def on_files(files, config):
    """Add the pages."""
    for page, source in _outside().items():
        text = source.read_text(encoding="utf-8")
        if source.suffix == ".py":
            text = f"# {source.name}\n\n```python\n{text}```\n"
        files.append(File.generated(config, page, content=_linked(text, page, source)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Have links that lead out of the folder lead to the pages that are made."""
    source = Path(config.docs_dir) / page.file.src_uri
    return _linked(markdown, page.file.src_uri, source) if source.exists() else markdown


def _linked(text: str, page: str, source: Path) -> str:
    made = {path.resolve(): name for name, path in _outside().items()}

    def relative(match: re.Match[str]) -> str:
        target = (source.parent / match[1]).resolve()
        if target in made:
            name = made[target]
        elif target.is_relative_to(ROOT / "docs"):
            name = target.relative_to(ROOT / "docs").as_posix()
        else:
            return match[0]  # a file of the source, of which there is no page
        depth = len(PurePosixPath(page).parents) - 1
        return "../" * depth + name + (match[2] or "")

    return _LINK.sub(relative, text)
