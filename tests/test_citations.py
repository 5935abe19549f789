"""One citation: every field by a written-out example, and what is missing."""

from lxml import etree

from mediswift import citations


def article(inside: str = "", around: str = "") -> etree._Element:
    return etree.fromstring(
        f"<PubmedArticle><MedlineCitation><PMID Version='1'>1</PMID><Article>{inside}</Article>"
        f"{around}</MedlineCitation></PubmedArticle>"
    )


def field(name: str, inside: str = "", around: str = "") -> object:
    return citations.read(article(inside, around))[name]


def test_nothing_is_needed():
    bare = etree.fromstring("<PubmedArticle/>")
    assert citations.read(bare) == citations.blank()
    only = etree.fromstring("<MedlineCitation><PMID>05</PMID></MedlineCitation>")
    assert citations.read(only) == citations.blank() | {"pmid": "5"}
    citations.read(bare)["sections"].append("mine")
    assert citations.read(bare)["sections"] == []


def test_version_is_a_number_or_the_first():
    for said, version in (("2", 2), ("", 1), ("x", 1), ("0", 1), ("²", 1), ("99999", 1)):
        node = etree.fromstring(f'<PMID Version="{said}"> 17 </PMID>')
        assert citations.read_pmid(node) == {"pmid": "17", "version": version}


def test_markup_is_flattened_and_no_text_lost():
    math = (
        '<mml:math xmlns:mml="http://www.w3.org/1998/Math/MathML"><mml:mrow><mml:mi>x</mml:mi>'
        "<mml:msup><mml:mi>e</mml:mi><mml:mn>2</mml:mn></mml:msup></mml:mrow></mml:math>"
    )
    title = f"<ArticleTitle>On <i>NF-<sub>κ</sub>B</i>\n   and {math} &lt; 1.</ArticleTitle>"
    assert field("title", title) == "On NF-κB and xe2 < 1."


def test_sections_with_labels_bare_headings_and_none():
    abstract = (
        '<AbstractText Label=" AIM " NlmCategory="OBJECTIVE">To  see.</AbstractText>'
        '<AbstractText Label="UNLABELLED">All.</AbstractText><AbstractText/>'
        '<AbstractText Label="LEVEL OF EVIDENCE: 4"/>'
    )
    assert field("sections", f"<Abstract>{abstract}</Abstract>") == [
        ["AIM", "To see."],
        ["", "All."],
        ["LEVEL OF EVIDENCE: 4", ""],
    ]


def test_abstract_without_sections_and_its_copyright():
    note = "<CopyrightInformation>Copyright <b>2001</b>.</CopyrightInformation>"
    bare = f"<Abstract>It grows. {note}</Abstract>"
    assert field("sections", bare) == [["", "It grows."]]
    assert field("copyright", bare) == "Copyright 2001."
    assert field("sections", f"<Abstract>{note}</Abstract>") == []


def test_other_abstracts_are_not_this_one():
    other = "<OtherAbstract Language='fre'><AbstractText>Ça pousse.</AbstractText></OtherAbstract>"
    assert field("sections", "", other) == []


def test_year_of_the_issue_a_free_date_or_the_e_print():
    for date, year in (
        ("<Year>2001</Year>", "2001"),
        ("<MedlineDate>1998 Dec-1999 Jan</MedlineDate>", "1998"),
        ("<MedlineDate>Winter 1975/1976</MedlineDate>", "1975"),
        ("<MedlineDate>no year</MedlineDate>", ""),
    ):
        issue = f"<Journal><JournalIssue><PubDate>{date}</PubDate></JournalIssue></Journal>"
        assert field("year", issue) == year
    assert field("year", "<ArticleDate><Year>2003</Year></ArticleDate>") == "2003"


def test_languages():
    assert field("language", "<Language>eng</Language><Language>fre</Language>") == "eng fre"


def test_mesh_headings_major_or_not_with_qualifiers():
    mesh = (
        '<MeshHeadingList><MeshHeading><DescriptorName UI="D1" MajorTopicYN="N">Asthma'
        '</DescriptorName><QualifierName UI="Q1" MajorTopicYN="Y">therapy</QualifierName>'
        '</MeshHeading><MeshHeading><DescriptorName UI="D2" MajorTopicYN="Y">Sleep'
        "</DescriptorName></MeshHeading><MeshHeading/></MeshHeadingList>"
    )
    therapy = {"ui": "Q1", "name": "therapy", "major": True}
    assert field("mesh", "", mesh) == [
        {"ui": "D1", "name": "Asthma", "major": False, "qualifiers": [therapy]},
        {"ui": "D2", "name": "Sleep", "major": True, "qualifiers": []},
        {"ui": "", "name": "", "major": False, "qualifiers": []},
    ]
