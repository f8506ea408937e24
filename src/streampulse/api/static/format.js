// Numbers and times as people read them. Money stays exact: it is a decimal string, never a float.
const whole = new Intl.NumberFormat("en-US");

export const count = (number) => whole.format(number);

// "1234.50" -> "$1,234.50"
export function money(text) {
  const [dollars, cents] = text.split(".");
  return `$${whole.format(BigInt(dollars))}.${cents}`;
}

// "1234.50" -> 123450n
export const cents = (text) => BigInt(text.replace(".", ""));

// A figure's text, and how long it is: its size follows from that, so that none is cut off at its border.
export function write(element, text) {
  element.textContent = text;
  element.style.setProperty("--length", text.length);
}

// What people see of a stream's name: one of blanks alone could be neither seen nor clicked.
export const shown = (stream) => (/\S/u.test(stream) ? stream : JSON.stringify(stream));

const twoDigits = (number) => String(number).padStart(2, "0");

// An RFC 3339 instant -> "12:34" or, with seconds, "12:34:56", in UTC.
export function time(instant, seconds = false) {
  const date = new Date(instant);
  const hours = `${twoDigits(date.getUTCHours())}:${twoDigits(date.getUTCMinutes())}`;
  return seconds ? `${hours}:${twoDigits(date.getUTCSeconds())}` : hours;
}

export function ago(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return `${Math.round(seconds / 60)} min`;
}
