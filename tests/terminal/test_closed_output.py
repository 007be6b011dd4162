import io
import os

import pytest

from convjax.terminal.closed_output import ClosableOutput


def test_closable_output_notices_that_its_reader_has_ended():
    reader, writer = os.pipe()
    with open(writer, "w") as file:
        output = ClosableOutput(file)
        assert output.write("first\n") == 6
        output.flush()
        assert not output.closed_by_reader
        assert os.read(reader, 100) == b"first\n"
        os.close(reader)
        assert output.write("second\n") == 7
        output.flush()
        assert output.closed_by_reader
        assert output.write("third\n") == 6  # discarded
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)  # where the end of the block writes


def test_closable_output_is_the_file_otherwise():
    file = io.StringIO()
    output = ClosableOutput(file)
    print("text", file=output, flush=True)
    assert (file.getvalue(), output.isatty()) == ("text\n", False)

    class Full(io.StringIO):
        def flush(self):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        ClosableOutput(Full()).flush()


def test_closable_output_without_a_file():
    """As Python starts where standard output is closed."""
    output = ClosableOutput(None)
    assert output.write("text") == 4
    output.flush()
    assert not output.closed_by_reader
    output.close()
