"""Tables name the network first, and have the name of what they hold."""

import pandas as pd

from mitoscope.reporting.whole_fields import write_tables


def test_tables_name_their_network(tmp_path):
    tables = {"fields": pd.DataFrame({"patient": ["NA"], "tp": [3]}), "objects": pd.DataFrame({"patient": []})}
    write_tables(tmp_path / "new", "small", tables)
    assert (tmp_path / "new/fields.csv").read_text() == "network,patient,tp\nsmall,NA,3\n"
    assert (tmp_path / "new/objects.csv").read_text() == "network,patient\n"
    assert list(tables["fields"]) == ["patient", "tp"]
