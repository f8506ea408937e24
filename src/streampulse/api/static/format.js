// Numbers and times as text for people. Money stays an exact decimal string and never becomes a float.
const whole = new Intl.NumberFormat("en-US");

export const count = (number) => whole.format(number);

// "1234.50" -> "$1,234.50"
export function money(text) {
  const [dollars, cents] = text.split(".");
  return `$${whole.format(BigInt(dollars))}.${cents}`;
}

// "1234.50" -> 123450n
export const cents = (text) => BigInt(text.replace(".", ""));

// Write a figure's text and its length. The style sheet derives the font size from the length, so the text fits.
export function write(element, text) {
  element.textContent = text;
  element.style.setProperty("--length", text.length);
}

// The name of a stream as the page shows it. A name of blanks alone needs a visible text to click on.
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
