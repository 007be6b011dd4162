"""HTML pages: each a single file that needs no network, light or dark as the reader's system is."""

import base64
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def render(package: str, template: str, **context: Any) -> str:
    """Returns the page that a template makes of its context.

    The template lies in the folder `templates` of `package`, such as "convjax.explorer"; it may
    extend "base.html" of `convjax.report`.

    Text is escaped; what is meant as data goes in with the filter `tojson`. A name that the
    template uses and the context lacks is an error, and not an empty place.

    Raises:
      ImportError: if jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(
            'pages need jinja2, which is not installed: pip install "convjax[pages]"'
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


def picture(figure: "Figure", *, dpi: int = 110) -> str:
    """Returns a figure as a data URL, for the `src` of an image."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
