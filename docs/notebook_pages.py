"""A hook of mkdocs: runs every notebook of the site in a kernel and makes a page of it.

Notebooks are kept without outputs. A cell that fails, or writes to stderr, ends the build.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat import NotebookNode


class NotebookPage(File):
    """A page whose source is a notebook, so that links to the notebook lead to it."""

    def is_documentation_page(self) -> bool:
        """It is, though its name does not end as Markdown's do."""
        return True


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Replace every notebook by its page, and add its pictures."""
    for file in [each for each in files if each.src_uri.endswith(".ipynb")]:
        body, pictures = render(file.name, run(Path(file.abs_src_path or "")))
        files.remove(file)
        files.append(NotebookPage.generated(config, file.src_uri, content=body))
        for name, picture in pictures.items():
            uri = f"{Path(file.src_uri).parent.as_posix()}/{name}"
            files.append(File.generated(config, uri, content=picture))
    return files


def run(path: Path) -> NotebookNode:
    """The notebook with the outputs of its cells."""
    notebook = nbformat.read(path, as_version=4)
    with TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=900,
            startup_timeout=300,
            kernel_name="python3",
            coalesce_streams=True,
            extra_arguments=["--log-level=ERROR"],  # it warns of its own port on this machine
            resources={"metadata": {"path": folder}},
        ).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise PluginError(f"{path}: a cell wrote to stderr: {output['text']}")
    return notebook


def render(name: str, notebook: NotebookNode) -> tuple[str, dict[str, bytes]]:
    """Markdown, and pictures by name; the alternative text of a picture is its cell's `alt`."""
    body, resources = MarkdownExporter().from_notebook_node(notebook, {"unique_key": name})
    texts = [cell.metadata["alt"] for cell in notebook.cells if "alt" in cell.metadata]
    if len(texts) != body.count("![png]"):
        raise PluginError(f"{name}: a cell that draws has no `alt` in its metadata")
    for text in texts:
        body = body.replace("![png]", f"![{text}]", 1)
    return body, resources["outputs"]
