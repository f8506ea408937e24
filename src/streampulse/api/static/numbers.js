// The current numbers: the server's last snapshot with all later updates. Values are absolute, so the last one counts.
const ORDER = {
  active_viewers: (row) => BigInt(row.active_viewers),
  chat_messages: (row) => BigInt(row.chat_messages),
  donations_usd: (row) => BigInt(row.donations_usd.replace(".", "")),
};

export class Numbers {
  head = null;
  trend = null;
  streams = new Map();

  take(name, document) {
    if (name === "snapshot") this.streams.clear();
    else if (!this.head) return false;
    for (const row of document.rows) this.streams.set(row.stream_id, { ...this.streams.get(row.stream_id), ...row });
    for (const stream of document.removed ?? []) this.streams.delete(stream);
    if (document.totals_trend) this.trend = document.totals_trend;
    this.head = document;
    return true;
  }

  // The first rows by one measure. Rows with equal values are ordered by the code points of their names, as in the API.
  ranked(by, most) {
    const value = ORDER[by];
    return [...this.streams.values()]
      .map((row) => ({ row, value: value(row) }))
      .sort((a, b) => (a.value === b.value ? byCodePoints(a.row.stream_id, b.row.stream_id) : a.value < b.value ? 1 : -1))
      .slice(0, most)
      .map(({ row }) => row);
  }
}

function byCodePoints(a, b) {
  const left = [...a];
  const right = [...b];
  for (let index = 0; index < Math.min(left.length, right.length); index += 1) {
    const difference = left[index].codePointAt(0) - right[index].codePointAt(0);
    if (difference) return difference;
  }
  return left.length - right.length;
}
