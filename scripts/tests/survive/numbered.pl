# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
# Datagrams with numbers from 0 on, each sent once, and whether each arrives at most once: UDP does not
# look. Without any module, as the guest has none.
#
#   numbered.pl send ADDRESS PORT STOP             200 a second until there is a file STOP
#   numbered.pl receive ADDRESS PORT STOP SECONDS  until there is, and nothing has come for two seconds. It fails if
#                                                  nothing came for that many SECONDS before
my ($what, $address, $port, $stop, $longest) = @ARGV;
my $name = pack('S n C4 x8', 2, $port, split(/\./, $address));
socket(S, 2, 2, 17) or die "socket: $!";

# Seconds of a clock that nobody sets.
sub now {
  my $time = "\0" x 16;
  syscall(228, 1, $time) == 0 or die "clock_gettime: $!";
  my ($seconds, $nanos) = unpack('q2', $time);
  return $seconds + $nanos / 1e9;
}

if ($what eq 'send') {
  my $count = 0;
  connect(S, $name) or die "connect: $!";
  until (-e $stop) {
    # One that was refused counts as sent: its number is not used again.
    send(S, pack('Q', $count++), 0);
    select(undef, undef, undef, 0.005);
  }
  print "$count sent\n";
  exit;
}

my (%seen, $datagram, $last);
my ($quiet, $twice, $most, $pause) = (0, 0, -1, 0);
bind(S, $name) or die "bind: $!";
setsockopt(S, 1, 20, pack('q2', 0, 200_000)) or die "SO_RCVTIMEO: $!";
until ($quiet >= 10 && -e $stop) {
  my $came = defined recv(S, $datagram, 64, 0);
  my $now = now();
  # If no more come at all, that is a pause, too.
  $pause = $now - $last if defined $last && $now - $last > $pause && ($came || !-e $stop);
  if (!$came) {
    $quiet++;
    next;
  }
  my $number = unpack('Q', $datagram);
  $twice++ if $seen{$number}++;
  $most = $number if $number > $most;
  ($last, $quiet) = ($now, 0);
}
my $count = keys %seen;
printf "%d numbers, %d of those before lost, %d more than once, longest pause %.0f ms\n",
  $count, $most + 1 - $count, $twice, 1000 * $pause;
exit($twice > 0 || $count < 100 || $pause > $longest);
