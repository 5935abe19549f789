"""The bibliography of one citation, written out, and when it is missing."""

from lxml import etree

from mediswift import bibliography

WHOLE = """<PubmedArticle><MedlineCitation><PMID>7</PMID><Article><Journal><JournalIssue>
<Volume>12</Volume><Issue>3</Issue><PubDate><Year>2001</Year></PubDate></JournalIssue><Title>Sleep</Title></Journal>
<Pagination><MedlinePgn>1-9</MedlinePgn></Pagination>
<ELocationID EIdType="pii">S1</ELocationID><ELocationID EIdType="doi">10.1/x</ELocationID>
<AuthorList><Author><LastName>Curie</LastName><ForeName>Marie</ForeName><Initials>M</Initials>
<Identifier Source="ORCID">0000</Identifier>
<AffiliationInfo><Affiliation>Paris</Affiliation></AffiliationInfo>
<AffiliationInfo><Affiliation>Warsaw</Affiliation></AffiliationInfo></Author>
<Author><CollectiveName>The Group</CollectiveName></Author></AuthorList>
<GrantList><Grant><GrantID>G1</GrantID><Acronym>HL</Acronym><Agency>NHLBI</Agency>
<Country>United States</Country></Grant></GrantList>
<PublicationTypeList><PublicationType UI="D1">Review</PublicationType></PublicationTypeList>
<VernacularTitle>Der <i>Schlaf</i></VernacularTitle></Article>
<MedlineJournalInfo><Country>England</Country><MedlineTA>Sleep</MedlineTA>
<NlmUniqueID>123</NlmUniqueID><ISSNLinking>0161</ISSNLinking></MedlineJournalInfo>
<ChemicalList><Chemical><NameOfSubstance UI="D2">Caffeine</NameOfSubstance></Chemical>
</ChemicalList><OtherID Source="NLM">PMC9</OtherID><OtherID Source="NLM">NIHMS1</OtherID>
<KeywordList><Keyword>T<sub>2</sub></Keyword></KeywordList>
<KeywordList><Keyword>rest</Keyword></KeywordList></MedlineCitation>
<PubmedData><ArticleIdList><ArticleId IdType="doi">10.1/other</ArticleId></ArticleIdList>
<ReferenceList><Reference><Citation>One.</Citation><ArticleIdList>
<ArticleId IdType="pubmed">5</ArticleId></ArticleIdList></Reference>
<ReferenceList><Reference><Citation>Two.</Citation></Reference></ReferenceList>
</ReferenceList></PubmedData></PubmedArticle>"""


def test_every_field():
    found = bibliography.read(etree.fromstring(WHOLE))
    nobody = {"last": "", "first": "", "initials": "", "identifiers": [], "affiliations": []}
    assert found["pmid"] == "7" and found["journal"] == found["abbreviation"] == "Sleep"
    assert (found["volume"], found["issue"], found["pages"]) == ("12", "3", "1-9")
    assert (found["doi"], found["pmc"]) == ("10.1/x", "PMC9")
    assert found["other_ids"] == ["PMC9", "NIHMS1"] and found["keywords"] == ["T2", "rest"]
    assert found["vernacular_title"] == "Der Schlaf" and found["country"] == "England"
    assert (found["nlm_id"], found["issn"]) == ("123", "0161")
    assert found["types"] == [{"ui": "D1", "name": "Review"}]
    assert found["chemicals"] == [{"ui": "D2", "name": "Caffeine"}]
    curie, group = found["authors"]
    assert curie["affiliations"] == ["Paris", "Warsaw"] and curie["identifiers"] == ["0000"]
    assert (curie["last"], curie["first"], curie["initials"]) == ("Curie", "Marie", "M")
    assert group == nobody | {"collective": "The Group"}
    grant = {"id": "G1", "acronym": "HL", "agency": "NHLBI", "country": "United States"}
    assert found["grants"] == [grant]
    references = [{"citation": "One.", "pmid": "5"}, {"citation": "Two.", "pmid": ""}]
    assert found["references"] == references


def test_nothing_is_needed():
    for bare in ("<PubmedArticle/>", "<PubmedArticle><MedlineCitation/></PubmedArticle>"):
        found = bibliography.read(etree.fromstring(bare))
        assert not any(value for name, value in found.items() if name != "version")


def test_the_doi_of_the_article_is_not_that_of_a_reference():
    inside = '<ArticleIdList><ArticleId IdType="doi">10.1/r</ArticleId></ArticleIdList>'
    reference = f"<ReferenceList><Reference>{inside}</Reference></ReferenceList>"
    xml = f"<PubmedArticle><PubmedData>{reference}</PubmedData></PubmedArticle>"
    assert bibliography.read(etree.fromstring(xml))["doi"] == ""
