"""The countries of ISO 3166-1 by their alpha-2 codes; pure."""

from typing import Annotated

from pydantic import AfterValidator, Field
from typing_extensions import TypeAliasType

COUNTRIES = frozenset(
    """
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY
BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK
FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR
IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK
ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM
PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF
TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
""".split()  # noqa: SIM905 - a line of codes reads better than a line of quotes
)
"""The officially assigned codes. User-assigned ones, such as XK, name a country in one place and none in another."""
NOT_A_CODE = "write a country as the two capital letters of ISO 3166-1, such as DE"


def check_country(value: str) -> str:
    """Return the code of a country unchanged.

    Raises:
        ValueError: no country has it.
    """
    if value not in COUNTRIES:
        raise ValueError(NOT_A_CODE)
    return value


Country = TypeAliasType(
    "Country",
    Annotated[
        str,
        Field(min_length=2, max_length=2, json_schema_extra={"enum": sorted(COUNTRIES)}),
        AfterValidator(check_country),
    ],
)
"""A country's code; an alias with a name, so that schemas list the codes once."""
