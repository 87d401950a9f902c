"""XMP packets of pictures: values of one maker or standard, by name."""

from collections.abc import Mapping
from xml.etree import ElementTree

_ENOUGH = 1 << 20


def read_xmp(packet: object, namespace: str, prefix: str) -> tuple[Mapping[str, str], str | None]:
    """Values of a namespace (its address) in the packet of a loaded picture (`info["xmp"]`), and what is wrong with it.

    Packets in which its usual prefix does not occur are not looked at.
    """
    data = packet.encode() if isinstance(packet, str) else packet
    if not isinstance(data, bytes) or prefix.encode() not in data:
        return {}, None
    # entities could grow without bound, and no camera writes them
    if len(data) > _ENOUGH or b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        return {}, "its XMP is not such as cameras write"
    try:
        root = ElementTree.fromstring(data.rstrip(b"\0 \n"))
    except (ElementTree.ParseError, ValueError, LookupError):
        return {}, "its XMP is not XML"
    mark = "{" + namespace + "}"
    values: dict[str, str] = {}
    for element in root.iter():
        if element.tag.startswith(mark) and element.text:
            values[element.tag.removeprefix(mark)] = element.text.strip()
        values |= {name.removeprefix(mark): text for name, text in element.attrib.items() if name.startswith(mark)}
    return values, None
