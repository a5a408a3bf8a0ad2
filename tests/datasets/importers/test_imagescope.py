"""ImageScope's XML: hand-written files in its form, unsafe files and damaged ones."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoscope.datasets.importers import Found
from mitoscope.datasets.importers.classes import Classes
from mitoscope.datasets.importers.imagescope import read_imagescope
from mitoscope.errors import InputError

BOX = [(10, 20), (14, 20), (14, 26), (10, 26)]  # its middle is row 23, col 12


def region(*corners, kind=0, text="", **attributes):
    """A region as ImageScope writes it; corners are x, y."""
    more = "".join(f' {name}="{value}"' for name, value in attributes.items())
    vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in corners)
    head = f'<Region Id="1" Type="{kind}" Zoom="0.5" ImageFocus="-1" Length="9.1" Area="24.0" Text="{text}"{more}>'
    return f"{head}<Attributes/><Vertices>{vertices}</Vertices></Region>"


def layer(*regions, name="", number=1, attributes=""):
    """A layer as ImageScope writes it."""
    return (
        f'<Annotation Id="{number}" Name="{name}" ReadOnly="0" NameReadOnly="0" LineColorReadOnly="0" Incremental="0" '
        f'Type="4" LineColor="65280" Visible="1" Selected="1" MarkupImagePath="" MacroName=""><Attributes>{attributes}'
        '</Attributes><Regions><RegionAttributeHeaders><AttributeHeader Id="9999" Name="Region" ColumnWidth="-1"/>'
        f"</RegionAttributeHeaders>{''.join(regions)}</Regions><Plots/></Annotation>"
    )


def read(folder: Path, *layers, classes=None) -> Found:
    """Write layers as an XML file and read it."""
    path = folder / "01_01.xml"
    path.write_text(f'<?xml version="1.0"?><Annotations MicronsPerPixel="0.25">{"".join(layers)}</Annotations>')
    return read_imagescope([path], classes or Classes())


def mitoses(found: Found):
    return found.by_image["01_01"].mitoses.tolist()


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (region(*BOX), [23, 12]),
        (region(*BOX, BOX[0]), [23, 12]),  # closed
        (region((10, 20), (14, 26), kind=2), [23, 12]),  # an ellipse is two corners of its box
        (region(*BOX, kind=1), [23, 12]),
        (region((10, 20), kind=5), [20, 10]),
        (region(("10,5", "20,5")), [20.5, 10.5]),  # of a Windows with decimal commas
        # An L of the squares 0..2 x 0..2 and 2..4 x 0..1.
        (region((0, 0), (4, 0), (4, 1), (2, 1), (2, 2), (0, 2)), [5 / 6, 10 / 6]),
    ],
)
def test_the_centre_of_each_kind_of_region(tmp_path, drawn, expected):
    np.testing.assert_allclose(mitoses(read(tmp_path, layer(drawn, name="Mitosis"))), [expected], atol=0.001)


def test_the_class_is_that_of_the_text_or_else_of_the_layer(tmp_path):
    found = read(
        tmp_path,
        layer(region((1, 2)), region((3, 4), text="hard negative"), region((5, 6), text="sure?"), name="Mitoses"),
        layer(
            region((7, 8)), attributes='<Attribute Name="Description" Id="0" Value="Non-mitotic figures"/>', number=2
        ),
        layer(region((9, 10)), attributes='<Attribute Name="MF" Id="0" Value=""/>', number=3),
        layer(region(*BOX), region(*BOX), name="Tumor", number=4),
        layer(region(*BOX), number=5),
    )
    assert mitoses(found) == [[2, 1], [6, 5], [10, 9]]
    assert found.by_image["01_01"].lookalikes.tolist() == [[4, 3], [8, 7]]
    assert found.notes == (
        "3 annotations of other classes left out: Tumor (2), layer 5 (1)",
        "1 regions have a text that names no class; the class of their layer is taken",
    )


def test_a_layer_without_a_name_is_asked_for(tmp_path):
    content = layer(region((10, 20)))
    with pytest.raises(InputError, match=r"01_01\.xml: has no annotation of the class Mitosis, but of layer 1 \(1\);"):
        read(tmp_path, content)
    assert mitoses(read(tmp_path, content, classes=Classes(mitosis=("layer 1",)))) == [[20, 10]]


def test_what_marks_no_figure_is_counted(tmp_path):
    drawn = (region(*BOX[:2], kind=3), region(*BOX[:2], kind=4), region(*BOX, NegativeROA="1"), region())
    found = read(tmp_path, layer(region((1, 2)), *drawn, name="Mitosis"))
    assert mitoses(found) == [[2, 1]]
    assert found.notes == (
        "1 arrows left out",
        "1 rulers left out",
        "1 regions that are cut out left out",
        "1 regions without a vertex left out",
    )


def test_a_file_without_regions_is_an_image_without_mitoses(tmp_path):
    assert mitoses(read(tmp_path, layer(name="Mitosis"))) == []


def test_a_file_in_utf16_is_read(tmp_path):
    text = f'<?xml version="1.0" encoding="UTF-16"?><Annotations>{layer(region((1, 2)), name="Mitosis")}</Annotations>'
    (tmp_path / "a.xml").write_bytes(text.encode("utf-16"))
    assert read_imagescope([tmp_path], Classes()).by_image["a"].mitoses.tolist() == [[2, 1]]


BOMB = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]><Annotations><Annotation Name="&c;"/></Annotations>'
OUTSIDE = '<!DOCTYPE a SYSTEM "file:///etc/passwd"><Annotations/>'


@pytest.mark.parametrize("content", [BOMB, OUTSIDE])
def test_entities_are_rejected(tmp_path, content):
    (tmp_path / "01_01.xml").write_text(content)
    with pytest.raises(InputError, match=r"01_01\.xml: has a DOCTYPE, which ImageScope never writes"):
        read_imagescope([tmp_path / "01_01.xml"], Classes())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not an XML file, or is cut off"),
        ("<Annotations>", "is not an XML file, or is cut off"),
        ("<ASAP_Annotations/>", "is XML, but has no Annotations with vertices as ImageScope writes them"),
        (
            '<ASAP_Annotations><Annotations><Annotation PartOfGroup="Mitosis"><Coordinates><Coordinate X="1" Y="2"/>'
            "</Coordinates></Annotation></Annotations></ASAP_Annotations>",
            "is XML, but has no Annotations with vertices as ImageScope writes them",
        ),
        (
            '<Annotations><Annotation Name="Mitosis"><Regions><Region><Vertices><V X="1" Y="2"/></Vertices></Region>'
            "</Regions></Annotation></Annotations>",
            "is XML, but has no Annotations with vertices as ImageScope writes them",
        ),
        ('<?xml version="1.0" encoding="nonsense"?><Annotations/>', "is not an XML file"),
        (f"<Annotations>{layer(region(('a', 2)), name='Mitosis')}</Annotations>", "a vertex has X 'a', which is not"),
        (f"<Annotations>{layer(region((1, 'inf')), name='Mitosis')}</Annotations>", "a vertex has Y 'inf', which is"),
    ],
)
def test_bad_files_are_one_line(tmp_path, content, message):
    (tmp_path / "01_01.xml").write_text(content)
    with pytest.raises(InputError, match=rf"01_01\.xml: {message}"):
        read_imagescope([tmp_path / "01_01.xml"], Classes())


WHOLE = f'<?xml version="1.0"?><Annotations>{layer(region(*BOX), region((1, 2), kind=2), name="Mitosis")}</Annotations>'


@pytest.mark.slow  # many examples
@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(WHOLE)), st.integers(0, 8), st.text(max_size=6) | st.sampled_from(["9e999", "<Region>", "-"]))
def test_any_change_gives_a_line_or_a_result(tmp_path_factory, place, cut, patch):
    path = tmp_path_factory.getbasetemp() / "fuzz.xml"
    path.write_text(WHOLE[:place] + patch + WHOLE[place + cut :], encoding="utf-8", errors="replace")
    try:
        found = read_imagescope([path], Classes())
    except InputError as error:
        assert str(error).count("\n") == 0 and "fuzz.xml" in str(error)
    else:
        assert np.isfinite(found.by_image["fuzz"].mitoses).all()
