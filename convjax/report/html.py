"""The templates of HTML pages: single files without network, light or dark as the system is."""

import base64
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import matplotlib.figure


def render(package: str, template: str, **context: Any) -> str:
    """Returns the page of a template.

    Text is escaped. Data enters the page with the filter `tojson`.

    Args:
      package: the package whose folder `templates` holds the template, such as "convjax.explorer".
      template: the template's file name; it may extend "base.html" of `convjax.report`.
      context: the values of the names in the template.

    Raises:
      ImportError: if jinja2 is not installed.
      jinja2.TemplateNotFound: if there is no such template.
      jinja2.UndefinedError: if the context lacks a name of the template.
    """
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(
            'pages need jinja2, which is not installed. Run: pip install "convjax[pages]"'
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(name) for name in (package, "convjax.report")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**context)


def picture(figure: "matplotlib.figure.Figure", *, dpi: int = 110) -> str:
    """Returns a figure as the data URL of a PNG image."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
