/*
 * The generator of load-coap.ts where a C compiler is at hand: `load-coap <port> <in flight> <milliseconds> <datagram in hex>`, prints
 * one Round as JSON. As load-coap-child.ts, with many datagrams per system call, so that it takes less of the machine from what
 * it measures.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PORTS = 8, BATCH = 64, BYTES_MAX = 2048, SAMPLES_MAX = 1000000, LOST_MS = 2000, SWEEP_MS = 250 };

/* One outstanding request after the other. Its number and the message id are the token, at 4 to 7. */
struct place {
  unsigned char datagram[BYTES_MAX];
  unsigned messageId;
  double sentMs;
};

struct port {
  int socket;
  unsigned messageId;
  int places;
  struct place *place;
};

static size_t datagramBytes;
static double samples[SAMPLES_MAX];
static long answered, errors;

static double nowMs(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static unsigned pairAt(const unsigned char *bytes) { return bytes[0] << 8 | bytes[1]; }

static void writePair(unsigned char *bytes, unsigned value) {
  bytes[0] = value >> 8;
  bytes[1] = value & 0xff;
}

static void flush(int socket, struct mmsghdr *messages, int count) {
  for (int sent = 0; sent < count;) {
    int now = sendmmsg(socket, messages + sent, count - sent, 0);
    if (now <= 0) return; /* Lost, as the server would have lost it: counted when its time is over. */
    sent += now;
  }
}

static void add(struct mmsghdr *message, struct iovec *part, void *bytes, size_t length) {
  part->iov_base = bytes;
  part->iov_len = length;
  memset(message, 0, sizeof *message);
  message->msg_hdr.msg_iov = part;
  message->msg_hdr.msg_iovlen = 1;
}

static void renew(struct port *port, struct place *place, double now) {
  port->messageId = (port->messageId + 1) & 0xffff;
  place->messageId = port->messageId;
  place->sentMs = now;
  writePair(place->datagram + 2, place->messageId);
  writePair(place->datagram + 6, place->messageId);
}

static void receive(struct port *port) {
  static unsigned char in[BATCH][BYTES_MAX], acks[BATCH][4];
  struct mmsghdr messages[BATCH], out[BATCH * 2];
  struct iovec parts[BATCH], outParts[BATCH * 2];
  for (int n = 0; n < BATCH; n++) add(&messages[n], &parts[n], in[n], BYTES_MAX);
  int got = recvmmsg(port->socket, messages, BATCH, MSG_DONTWAIT, NULL);
  int sending = 0;
  double now = nowMs();
  for (int n = 0; n < got; n++) {
    const unsigned char *answer = in[n];
    /* An empty acknowledgement: the answer comes separately, and wants to be acknowledged itself. */
    if (messages[n].msg_len < 8 || answer[1] == 0) continue;
    if ((answer[0] & 0x30) == 0) {
      acks[n][0] = 0x60;
      acks[n][1] = 0;
      memcpy(acks[n] + 2, answer + 2, 2);
      add(&out[sending], &outParts[sending], acks[n], 4);
      sending++;
    }
    unsigned number = pairAt(answer + 4);
    if (number >= (unsigned)port->places) continue;
    struct place *place = &port->place[number];
    if (place->messageId != pairAt(answer + 6)) continue;
    if (answer[1] >> 5 == 2) samples[answered++ % SAMPLES_MAX] = now - place->sentMs;
    else errors++;
    renew(port, place, now);
    add(&out[sending], &outParts[sending], place->datagram, datagramBytes);
    sending++;
  }
  flush(port->socket, out, sending);
}

static void sweep(struct port *port, double before, int lost) {
  for (int n = 0; n < port->places; n++) {
    struct place *place = &port->place[n];
    if (place->sentMs > before) continue;
    errors += lost;
    renew(port, place, nowMs());
    if (send(port->socket, place->datagram, datagramBytes, 0) < 0) continue;
  }
}

static void start(struct port *port, int server, int places, const unsigned char *datagram) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(server)};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  port->socket = socket(AF_INET, SOCK_DGRAM, 0);
  if (port->socket < 0 || connect(port->socket, (void *)&to, sizeof to) < 0) fail("connect");
  port->messageId = rand() & 0xffff;
  port->places = places;
  port->place = calloc(places, sizeof *port->place);
  for (int n = 0; n < places; n++) {
    memcpy(port->place[n].datagram, datagram, datagramBytes);
    writePair(port->place[n].datagram + 4, n);
  }
}

static int byValue(const void *a, const void *b) {
  double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  int inFlight = atoi(argv[2]), durationMs = atoi(argv[3]);
  unsigned char datagram[BYTES_MAX];
  datagramBytes = strlen(argv[4]) / 2;
  if (datagramBytes < 8 || datagramBytes > BYTES_MAX) return 2;
  for (size_t at = 0; at < datagramBytes; at++) sscanf(argv[4] + 2 * at, "%2hhx", &datagram[at]);
  struct port ports[PORTS];
  struct pollfd readable[PORTS];
  int used = inFlight < PORTS ? inFlight : PORTS;
  srand(getpid());
  for (int n = 0; n < used; n++) {
    start(&ports[n], atoi(argv[1]), (inFlight + used - 1 - n) / used, datagram);
    readable[n] = (struct pollfd){.fd = ports[n].socket, .events = POLLIN};
  }
  double startedMs = nowMs(), sweptMs = startedMs;
  for (int n = 0; n < used; n++) sweep(&ports[n], startedMs, 0);
  double now = startedMs;
  while (now - startedMs < durationMs) {
    poll(readable, used, 100);
    for (int n = 0; n < used; n++)
      if (readable[n].revents) receive(&ports[n]);
    now = nowMs();
    if (now - sweptMs < SWEEP_MS) continue;
    sweptMs = now;
    for (int n = 0; n < used; n++) sweep(&ports[n], now - LOST_MS, 1);
  }
  long count = answered < SAMPLES_MAX ? answered : SAMPLES_MAX;
  qsort(samples, count, sizeof *samples, byValue);
  double p50 = count ? samples[count / 2] : 0, p99 = count ? samples[(long)(count * 0.99)] : 0;
  printf("{\"perSecond\":%.0f,\"p50Ms\":%.3f,\"p99Ms\":%.3f,\"errors\":%ld}\n",
         answered * 1e3 / (now - startedMs), p50, p99, errors);
  return 0;
}
