// A picture by itself, once: the views of the page take it from where it is put, so that their messages need not carry it.

export default function mount({ data }) {
  const { photo, picture } = unpack(data);
  putPicture(photo, picture);
  return undefined;
}
